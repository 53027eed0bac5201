"""The pack of source images: some of each of a few published data sets, kept once in the user's cache folder.

With it, a candidate that is loaded anyway can be profiled on tasks whose accuracies are published (`source_cells`). The
images are those of CLIP benchmark's data sets on the hub, whose layout is that of webdatasets: ``test/0.tar``,
``test/1.tar``, ..., ``classnames.txt`` and ``zeroshot_classification_templates.txt``.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.cache import default_cache_dir, digest, write_atomically
from vlmsel_auto.errors import TaskError, TrialUnavailable
from vlmsel_auto.events import Notice, Sink, StageFinished, StageProgress, StageStarted, discard
from vlmsel_auto.measuring.tar_samples import Archive, take_samples
from vlmsel_auto.models import hub
from vlmsel_auto.recordjson import parse_json
from vlmsel_auto.records import ImageView, IntArray, PixelSource, Task
from vlmsel_auto.tasks.file_names import nfc
from vlmsel_auto.tasks.preprocessing import read_view
from vlmsel_auto.tasks.templates import DEFAULT_TEMPLATES

IMAGES: Final = 32  # of a task, as a profile of the library takes
BYTES_PER_IMAGE: Final = 1 << 20  # that are read at most, on average

# The data sets of the DCD paper for which open_clip publishes accuracies, under the names that these have
# (`published.datasets`), and what CLIP benchmark's repository of their images is named after its prefix.
PUBLISHED: Final[Mapping[str, str]] = {
    "Stanford Cars": "cars",
    "CIFAR-100": "vtab-cifar100",
    "CLEVR Counts": "vtab-clevr_count_all",
    "Country211": "country211",
    "Describable Textures": "vtab-dtd",
    "EuroSAT": "vtab-eurosat",
    "GTSRB": "gtsrb",
    "KITTI Vehicle Distance": "vtab-kitti_closest_vehicle_distance",
    "MNIST": "mnist",
    "Oxford Flowers-102": "vtab-flowers",
    "Oxford-IIIT Pet": "vtab-pets",
    "PatchCamelyon": "vtab-pcam",
    "Rendered SST2": "renderedsst2",
    "RESISC45": "vtab-resisc45",
    "STL-10": "stl10",
    "SUN397": "sun397",
    "SVHN": "vtab-svhn",
    "Pascal VOC 2007": "voc2007",
}

_REPOSITORY: Final = "clip-benchmark/wds_"
_CLASS_NAMES: Final = "classnames.txt"  # one class a line
_TEMPLATES: Final = "zeroshot_classification_templates.txt"  # one template a line, with {c} for the class
_MOST_ARCHIVES: Final = 16  # that are read of; more are passed over evenly
_VERSION: Final = 3  # of the record: a change makes kept tasks unused
_RECORD: Final = "source.json"
_MOST_TEMPLATES: Final = 4  # of prompts, spread over those that are given: texts cost time on every candidate
_LEAST_SHARE: Final = 0.5  # of the wanted images that a task needs


@dataclass(frozen=True, kw_only=True, slots=True)
class _PackImages(PixelSource):
    """Images that are decoded whenever they are wanted: a pack is read once by a candidate."""

    root: Path
    paths: tuple[str, ...]

    def read(self, view: ImageView, indices: IntArray) -> NDArray[np.uint8]:
        """The images ``indices`` in ``view``: uint8 (n, size, size, 3), RGB."""
        return np.stack([read_view(self.root / self.paths[each], view)[0] for each in indices])

    def prepare(self, view: ImageView, indices: IntArray, *, check: Callable[[], None] = lambda: None) -> None:
        """Nothing: there are few."""


def pack_dir() -> Path:
    """Folder of the pack, in the user's cache folder."""
    return default_cache_dir() / "sources"


def missing(names: Sequence[str], *, images: int = IMAGES) -> tuple[str, ...]:
    """Those of the published data sets ``names`` of which the pack lacks its ``images``.

    Raises:
        TaskError: one is none of `PUBLISHED`.
    """
    for name in names:
        if name not in PUBLISHED:
            raise TaskError(f"source images can be had of {', '.join(PUBLISHED)}, but got {name!r}")
    records = {name: _read(_folder(name)) for name in names}
    return tuple(name for name, record in records.items() if record is None or record["wanted"] != images)


def fetch_pack(names: Sequence[str], *, images: int = IMAGES, sink: Sink = discard) -> dict[str, str]:
    """Bring images of these data sets of `PUBLISHED`; `missing` says which are not here, also after a kill.

    Of the hub at most a mebibyte an image is read, on average.

    Returns:
        Why data sets could not be had, by name.
    """
    began, failures = time.monotonic(), dict[str, str]()
    sink(StageStarted(stage="library", total=len(names), text="source images"))
    for done, name in enumerate(names, start=1):
        try:
            _bring(name, images=images, sink=sink)
        except (TaskError, TrialUnavailable) as error:
            failures[name] = str(error)
            sink(Notice(text=f"no source images of {name}: {error}", level="warning"))
        sink(StageProgress(stage="library", done=done, text=name))
    text = f"source images of {len(names) - len(failures)} of {len(names)} tasks"
    sink(StageFinished(stage="library", seconds=time.monotonic() - began, text=text))
    return failures


def _folder(name: str) -> Path:
    return pack_dir() / re.sub(r"[^a-z0-9]+", "-", name.lower())


def _bring(name: str, *, images: int, sink: Sink) -> None:
    """Take the images of one data set.

    Raises:
        TaskError: it holds too few images or classes.
        TrialUnavailable: the hub cannot be reached or refuses.
    """
    with hub.dataset_files(_REPOSITORY + PUBLISHED[name]) as files:
        # a line may be empty: its class has no name, and the numbers after it stay
        classes = [nfc(line.strip()) for line in files.text(_CLASS_NAMES).splitlines()]
        templates = parse_templates(files.text(_TEMPLATES))
        tars = [(path, size) for path, size in sorted(files.sizes("test").items()) if path.endswith(".tar")]
        wanted = min(len(tars), _MOST_ARCHIVES)
        some = [tars[number * len(tars) // wanted] for number in range(wanted)]
        samples, skipped = take_samples(
            [Archive(name=path, size=size, open=partial(files.open, path)) for path, size in some],
            n_classes=len(classes),
            count=images,
            most_bytes=images * BYTES_PER_IMAGE,
        )
    for reason in skipped:
        sink(Notice(text=f"{name}: {reason}", level="warning"))
    if len(classes) < 2 or len(samples) < _LEAST_SHARE * images:  # noqa: PLR2004 - classes to tell apart
        raise TaskError(
            f"a pack of {images} images needs half of them and two classes, but got {len(samples)} of "
            f"{len(classes)} classes"
        )
    folder = _folder(name)
    shutil.rmtree(folder, ignore_errors=True)
    paths = [f"{number:04d}.{one.suffix}" for number, one in enumerate(samples)]
    for path, one in zip(paths, samples, strict=True):
        write_atomically(folder / path, one.image)
    at = np.unique(np.linspace(0, len(templates) - 1, _MOST_TEMPLATES).round().astype(int))
    record = {
        "version": _VERSION,
        "name": name,
        "wanted": images,
        "classes": classes,
        "templates": [templates[each] for each in at],
        "labels": [one.label for one in samples],
        "files": paths,
        "sha256": [sha256(one.image).hexdigest() for one in samples],
    }
    write_atomically(folder / _RECORD, json.dumps(record, ensure_ascii=False, indent=1).encode())


def parse_templates(text: str) -> tuple[str, ...]:
    """The prompt templates, with one {} each for the class; the default where no line is one."""
    lines = (line.strip().replace("{c}", "{}") for line in text.splitlines())
    usable = tuple(line for line in lines if line.count("{}") == line.count("{") == line.count("}") == 1)
    return usable or DEFAULT_TEMPLATES


def _read(folder: Path) -> dict[str, Any] | None:
    """The record of a task that is here whole."""
    try:
        record = parse_json((folder / _RECORD).read_bytes())
        whole = record["version"] == _VERSION and all((folder / one).is_file() for one in record["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if whole else None


def load_pack() -> tuple[Task, ...]:
    """The tasks of the pack that are here, by name; their images are unlabelled and labelled ones at once.

    Every image is in ``train`` and ``support``; there is no test split, since accuracies are published. A place that
    cannot be reached holds none.
    """
    records = {name: _read(_folder(name)) for name in sorted(PUBLISHED)}
    return tuple(_task(_folder(name), record) for name, record in records.items() if record is not None)


def _task(folder: Path, record: Mapping[str, Any]) -> Task:
    paths = tuple(record["files"])
    everything = np.arange(len(paths), dtype=np.int64)
    classes = tuple(record["classes"])
    return Task(
        name=record["name"],
        root=folder,
        classes=classes,
        prompts=classes,
        templates=tuple(record["templates"]),
        domain="published data set",
        metric="accuracy",
        paths=paths,
        labels=np.array(record["labels"], dtype=np.int64),
        train=everything,
        support=everything,
        shots=1,
        pixels=_PackImages(root=folder, paths=paths),
        digest=digest(*(record[part] for part in ("classes", "templates", "labels", "sha256"))),
    )
