"""The pack of source images: some of each of a few published data sets, kept once in the user's cache folder.

With it, a candidate that is loaded anyway can be profiled on tasks whose accuracies are published (`source_cells`).
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.cache import Json, default_cache_dir, digest, write_atomically
from vlmsel_auto.errors import TaskError
from vlmsel_auto.events import Notice, Sink, StageFinished, StageProgress, StageStarted, discard
from vlmsel_auto.measuring.webdatasets import BYTES_PER_IMAGE, WebDataset, open_webdataset
from vlmsel_auto.recordjson import parse_json
from vlmsel_auto.records import ImageView, IntArray, PixelSource, Task
from vlmsel_auto.tasks.file_names import is_folder
from vlmsel_auto.tasks.preprocessing import read_view

IMAGES: Final = 32  # of a task, as a profile of the library takes

# The data sets of the DCD paper for which open_clip publishes accuracies, under the names that these have
# (`published.datasets`), and where CLIP benchmark has their images.
PUBLISHED: Final[Mapping[str, str]] = {
    "Stanford Cars": "wds/cars",
    "CIFAR-100": "wds/vtab/cifar100",
    "CLEVR Counts": "wds/vtab/clevr_count_all",
    "Country211": "wds/country211",
    "Describable Textures": "wds/vtab/dtd",
    "EuroSAT": "wds/vtab/eurosat",
    "GTSRB": "wds/gtsrb",
    "KITTI Vehicle Distance": "wds/vtab/kitti_closest_vehicle_distance",
    "MNIST": "wds/mnist",
    "Oxford Flowers-102": "wds/vtab/flowers",
    "Oxford-IIIT Pet": "wds/vtab/pets",
    "PatchCamelyon": "wds/vtab/pcam",
    "Rendered SST2": "wds/renderedsst2",
    "RESISC45": "wds/vtab/resisc45",
    "STL-10": "wds/stl10",
    "SUN397": "wds/sun397",
    "SVHN": "wds/vtab/svhn",
    "Pascal VOC 2007": "wds/voc2007",
}

_VERSION: Final = 1  # of the record: a change makes kept tasks unused
_RECORD: Final = "source.json"
_MOST_TEMPLATES: Final = 4  # of prompts, spread over those that are given: texts cost time on every candidate
_LEAST_SHARE: Final = 0.5  # of the wanted images that a task needs
_AT_ONCE: Final = 8  # questions to the hub


@dataclass(frozen=True, kw_only=True, slots=True)
class SourcePlan:
    """What one task of the pack takes, told before its first image."""

    name: str
    source: str
    images: int
    folder: Path
    found: WebDataset | None = None  # None: it is here already, or cannot be had
    problem: str = ""  # why it cannot be had

    @property
    def here(self) -> bool:
        """Whether the images are here already."""
        return self.found is None and not self.problem

    @property
    def archive_bytes(self) -> int:
        """Bytes of the archives that are read in part."""
        return 0 if self.found is None else self.found.size

    @property
    def most_bytes(self) -> int:
        """Bytes that are read of them, at most."""
        return min(self.archive_bytes, self.images * BYTES_PER_IMAGE)


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


def plan_pack(names: Sequence[str] = tuple(PUBLISHED), *, images: int = IMAGES) -> tuple[SourcePlan, ...]:
    """What a pack of ``images`` of each of these tasks takes; what is here already is not asked for.

    ``names`` are published data sets (`PUBLISHED`) or webdatasets, as for `webdatasets.open_webdataset`.
    """
    known = {source: name for name, source in PUBLISHED.items()}
    wanted = dict.fromkeys((known.get(one, one), PUBLISHED.get(one, one)) for one in names)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(pool.map(lambda one: _plan(*one, images=images), wanted))


def _plan(name: str, source: str, *, images: int) -> SourcePlan:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    folder = pack_dir() / f"{slug}-{digest(source)[:6]}"
    plan = SourcePlan(name=name, source=source, images=images, folder=folder)
    record = _read(folder)
    if record is not None and record["wanted"] == images:
        return plan
    try:
        return replace(plan, found=open_webdataset(source))
    except TaskError as error:
        return replace(plan, problem=str(error))


def fetch_pack(plans: Sequence[SourcePlan], *, sink: Sink = discard) -> dict[str, str]:
    """Bring the images that are not here; task by task, so that the same call goes on after a kill.

    Returns:
        Why tasks could not be had, by name.
    """
    began = time.monotonic()
    failures = {one.name: one.problem for one in plans if one.problem}
    sink(StageStarted(stage="library", total=len(plans), text="source images"))
    for done, one in enumerate(plans, start=1):
        if one.found is not None:
            try:
                _bring(one, one.found, sink=sink)
            except TaskError as error:
                failures[one.name] = str(error)
        sink(StageProgress(stage="library", done=done, text=one.name))
    for name, reason in failures.items():
        sink(Notice(text=f"no source images of {name}: {reason}", level="warning"))
    text = f"source images of {len(plans) - len(failures)} of {len(plans)} tasks"
    sink(StageFinished(stage="library", seconds=time.monotonic() - began, text=text))
    return failures


def _bring(plan: SourcePlan, found: WebDataset, *, sink: Sink) -> None:
    got = found.take(plan.images)
    for reason in got.skipped:
        sink(Notice(text=f"{plan.name}: {reason}", level="warning"))
    if len(got.samples) < _LEAST_SHARE * plan.images:
        raise TaskError(f"a pack of {plan.images} images needs half of them, but got {len(got.samples)}")
    shutil.rmtree(plan.folder, ignore_errors=True)
    files: list[Json] = []
    for number, one in enumerate(got.samples):
        files.append(f"{number:04d}.{one.suffix}")
        write_atomically(plan.folder / str(files[-1]), one.image)
    at = np.unique(np.linspace(0, len(found.templates) - 1, _MOST_TEMPLATES).round().astype(int))
    record: dict[str, Json] = {
        "version": _VERSION,
        "name": plan.name if plan.name in PUBLISHED else found.name,
        "source": found.source,
        "wanted": plan.images,
        "classes": list(found.classes),
        "prompts": list(found.prompts),
        "templates": [found.templates[each] for each in at],
        "labels": [one.label for one in got.samples],
        "files": files,
        "sha256": [sha256(one.image).hexdigest() for one in got.samples],
    }
    write_atomically(plan.folder / _RECORD, json.dumps(record, ensure_ascii=False, indent=1).encode())


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
    root = pack_dir()
    folders = [one.parent for one in root.glob(f"*/{_RECORD}")] if is_folder(root) else []
    tasks = [_task(folder, record) for folder in folders if (record := _read(folder)) is not None]
    return tuple(sorted(tasks, key=lambda one: (one.name, one.root)))


def _task(folder: Path, record: Mapping[str, Any]) -> Task:
    paths = tuple(record["files"])
    everything = np.arange(len(paths), dtype=np.int64)
    return Task(
        name=record["name"],
        root=folder,
        classes=tuple(record["classes"]),
        prompts=tuple(record["prompts"]),
        templates=tuple(record["templates"]),
        domain="published data set",
        metric="accuracy",
        paths=paths,
        labels=np.array(record["labels"], dtype=np.int64),
        train=everything,
        support=everything,
        shots=1,
        pixels=_PackImages(root=folder, paths=paths),
        digest=digest(*(record[part] for part in ("classes", "prompts", "templates", "labels", "sha256"))),
    )
