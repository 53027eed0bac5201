"""Where a webdataset lies, and some of its images as a task folder: a folder, a tar file or a data set of the hub.

The layout is that of CLIP benchmark's ``wds_*`` data sets: ``test/0.tar``, ``test/1.tar``, ... with their number in
``test/nshards.txt``, ``classnames.txt`` and ``zeroshot_classification_templates.txt``.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from vlmsel_auto.cache import digest
from vlmsel_auto.errors import TaskError, TrialUnavailable
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.measuring.tar_samples import Archive, TakenSamples, local_archive, take_samples
from vlmsel_auto.models import hub
from vlmsel_auto.models.hubfiles import HubFile
from vlmsel_auto.tasks.class_names import prompt_of
from vlmsel_auto.tasks.file_names import nfc, printable, shown
from vlmsel_auto.tasks.in_memory import write_task
from vlmsel_auto.tasks.templates import DEFAULT_TEMPLATES

CLASS_NAMES: Final = "classnames.txt"  # one class a line
_TEMPLATES: Final = "zeroshot_classification_templates.txt"  # one template a line, with {c} for the class
_SHARDS: Final = "nshards.txt"  # beside the archives 0.tar, 1.tar, ...
HUB: Final = "hf-wds:"  # before ORG/NAME
BENCHMARK: Final = "wds/"  # before a data set's name, as CLIP benchmark writes it: wds/cars, wds/vtab/dtd
BYTES_PER_IMAGE: Final = 1 << 20  # that are read at most, on average

_ORGANISATION: Final = "clip-benchmark"
_SPLIT: Final = "test"
_MOST_SHARDS: Final = 16  # that are read of; more are passed over evenly
_MIN_OF_A_CLASS: Final = 2  # images: a task folder needs as many


@dataclass(frozen=True, kw_only=True, slots=True)
class WebDataset:
    """A webdataset before any image of it was read."""

    name: str
    source: str  # for people
    prompts: tuple[str, ...]  # (K,) class names by number
    templates: tuple[str, ...]
    archives: tuple[Archive, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names (K,) that differ and are not empty."""
        names = [nfc(one) or f"class {number}" for number, one in enumerate(self.prompts)]
        often = Counter(names)
        return tuple(f"{one} ({k})" if often[one] > 1 else one for k, one in enumerate(names))

    @property
    def size(self) -> int:
        """Bytes of the archives."""
        return sum(each.size for each in self.archives)

    @property
    def version(self) -> str:
        """Digest of where it lies and of its archives' sizes."""
        return digest(self.source, [[each.name, each.size] for each in self.archives])

    def take(self, count: int) -> TakenSamples:
        """Take ``count`` samples spread over the archives; a mebibyte each is read at most, on average.

        Raises:
            TaskError: an archive cannot be read.
        """
        most = count * BYTES_PER_IMAGE
        try:
            return take_samples(self.archives, n_classes=len(self.prompts), count=count, most_bytes=most)
        except (OSError, TrialUnavailable) as error:
            raise TaskError(f"images of {self.source} cannot be read: {error}") from error


def is_webdataset(path: Path) -> bool:
    """Whether a path of this disk is one: a tar file, or a folder with class names and tar files."""
    if path.suffix == ".tar":
        return path.is_file()
    return (path / CLASS_NAMES).is_file() and bool(_tars(path))


def open_webdataset(source: str) -> WebDataset:
    """Find a webdataset: ``wds/NAME`` of CLIP benchmark, ``hf-wds:ORG/NAME`` of the hub, or a path of this disk.

    Of the hub its small files are downloaded into huggingface_hub's cache, and the archives' sizes are asked for.

    Raises:
        TaskError: there is none, or it has no class names.
    """
    if source.startswith(BENCHMARK):
        name = source.removeprefix(BENCHMARK).replace("/", "-")
        return _of_hub(f"{_ORGANISATION}/wds_{name}", name=name)
    if source.startswith(HUB):
        repository = source.removeprefix(HUB)
        return _of_hub(repository, name=repository.rpartition("/")[2].removeprefix("wds_"))
    path = Path(source)
    if not is_webdataset(path):
        raise TaskError(
            f"a webdataset is {BENCHMARK}NAME, {HUB}ORG/NAME, a tar file or a folder with {CLASS_NAMES} and tar files, "
            f"but got {source!r}"
        )
    root = path if path.is_dir() else next((one for one in path.parents[:2] if (one / CLASS_NAMES).is_file()), None)
    if root is None:
        raise TaskError(f"a tar file needs {CLASS_NAMES} beside it or in the folder above, but got {source!r}")
    try:
        return _described(
            name=path.resolve().stem,
            source=str(path),
            names=(root / CLASS_NAMES).read_text("utf-8-sig"),
            templates=(root / _TEMPLATES).read_text("utf-8-sig") if (root / _TEMPLATES).is_file() else None,
            archives=[local_archive(one) for one in (_tars(path) if path.is_dir() else [path])],
        )
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"the names of a webdataset cannot be read: {error}, but got {source!r}") from error


def _tars(folder: Path) -> list[Path]:
    inside = folder / _SPLIT if (folder / _SPLIT).is_dir() else folder
    return sorted(inside.glob("*.tar"))


def _of_hub(repository: str, *, name: str) -> WebDataset:
    def file(path: str, *, optional: bool = False) -> HubFile:
        return HubFile(repository=repository, names=(path,), optional=optional, kind="dataset")

    try:
        names = hub.read_text(file(CLASS_NAMES)) or ""
        templates = hub.read_text(file(_TEMPLATES, optional=True))
        shards = (hub.read_text(file(f"{_SPLIT}/{_SHARDS}", optional=True)) or "1").strip()
        if not (shards.isascii() and shards.isdigit() and int(shards)):
            raise TaskError(f"{_SHARDS} must hold a number above 0, but got {shards[:20]!r} in {repository!r}")
        total = int(shards)
        wanted = min(total, _MOST_SHARDS)
        found = [hub.find(file(f"{_SPLIT}/{number * total // wanted}.tar")) for number in range(wanted)]
    except TrialUnavailable as error:
        raise TaskError(f"the webdataset {repository!r} cannot be had: {error}") from error
    archives = [
        Archive(name=f"{repository}/{one.name}", size=one.size or 0, read_from=partial(hub.read_from, one))
        for one in found
        if one is not None
    ]
    return _described(name=name, source=HUB + repository, names=names, templates=templates, archives=archives)


def _described(*, name: str, source: str, names: str, templates: str | None, archives: Sequence[Archive]) -> WebDataset:
    # a line may be empty: its class has no name, and the numbers after it stay
    prompts = tuple(printable(line.strip()) for line in names.splitlines())
    if len(prompts) < 2:  # noqa: PLR2004 - nothing to tell apart
        raise TaskError(f"{CLASS_NAMES} must name two classes or more, but got {len(prompts)} in {source}")
    return WebDataset(
        name=name,
        source=source,
        prompts=prompts,
        templates=parse_templates(templates or ""),
        archives=tuple(archives),
    )


def parse_templates(text: str) -> tuple[str, ...]:
    """The prompt templates, with one {} each for the class; the default where no line is one."""
    lines = (line.strip().replace("{c}", "{}") for line in text.splitlines())
    usable = tuple(line for line in lines if line.count("{}") == line.count("{") == line.count("}") == 1)
    return usable or DEFAULT_TEMPLATES


def task_folder(source: str, *, images: int, into: Path, sink: Sink = discard) -> Path:
    """Some images of a webdataset as a task folder below ``into``; the same call finds it again.

    Classes of which fewer than two images came are left out, and it is told.

    Args:
        source: as for `open_webdataset`.
        images: that are wanted.
        into: folder of such task folders.
        sink: takes notices.

    Raises:
        TaskError: it cannot be had, or too few images can be used.
    """
    found = open_webdataset(source)
    folder = into / f"{found.name}-{digest(found.version, images)[:12]}"
    if (folder / "task.toml").is_file():
        return folder
    got = found.take(images)
    for reason in got.skipped:
        sink(Notice(text=f"{found.source}: {reason}", level="warning"))
    counts = Counter(one.label for one in got.samples)
    kept = {label for label, count in counts.items() if count >= _MIN_OF_A_CLASS}
    if len(kept) < _MIN_OF_A_CLASS:
        raise TaskError(
            f"a source task needs two classes with two images each: take more images, but got {len(got.samples)} of "
            f"{found.source}"
        )
    classes = found.classes
    left_out = sorted(classes[label] for label in range(len(classes)) if label not in kept)
    if left_out:
        sink(Notice(text=f"{found.source}: fewer than two images came of {shown(left_out)}; left out"))
    shutil.rmtree(folder, ignore_errors=True)  # what a kill left
    write_task(
        ((one.image, classes[one.label], "") for one in got.samples if one.label in kept),
        folder=folder,
        name=found.name,
        domain="webdataset",
        templates=found.templates,
        prompts={classes[label]: found.prompts[label] or prompt_of(classes[label]) for label in sorted(kept)},
    )
    return folder
