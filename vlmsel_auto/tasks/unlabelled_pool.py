"""Images without labels: which of a pool are screened, and the task that they are, alone or beside labelled ones.

A draw goes by chance, of a given number or as many as fit a time. Screenings see some beside few labelled images, too,
since what signals of unlabelled images say of a handful is mostly noise (docs/results/ranking.md).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.errors import ImageError, TaskError
from vlmsel_auto.records import UNLABELLED, BadFile, Draw, IntArray, Task
from vlmsel_auto.tasks import split
from vlmsel_auto.tasks.copies import a_copy
from vlmsel_auto.tasks.decode import decode_image, in_threads
from vlmsel_auto.tasks.file_names import printable
from vlmsel_auto.tasks.known_images import KnownImages, Reading, known_images
from vlmsel_auto.tasks.scan import Files, ListedImage, Scan
from vlmsel_auto.units import byte_count, milliseconds

# images, whatever time they take; rankings by 80 are as good: docs/results/without-labels.md
LEAST: Final = 100
SECONDS: Final = 60.0  # for reading and embedding, of a sample that is as large as fits
_STEP: Final = 2 ** (1 / 2)  # sizes are steps apart: a machine that is timed a little slower draws the same sample
_TIMED: Final = 16  # images that are read to know how long one takes
_MEMORY: Final = 2**29  # bytes that what candidates keep of all images may take
_NUMBER: Final = 8  # bytes
_WIDTH: Final = 768  # numbers of an embedding, about
_COSINES: Final = 3  # numbers for an image and a class while they are compared
_DIGITS: Final = 15  # hexadecimal, of a digest: what an int64 holds


@dataclass(frozen=True, kw_only=True, slots=True)
class AsManyAsFit:
    """A sample as large as time and memory allow, though never below `LEAST` images.

    Sizes are `LEAST` times powers of the square root of 2, rounded down.
    """

    candidates: int
    image_seconds: Callable[[], float]  # in which all of them should embed one image; 0 where nobody knows
    seconds: float = SECONDS
    earlier: int | None = None  # images that a search which goes on began with: it keeps to them


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class DrawnFiles:
    """What was drawn of a scan, and a note on how many there are, and why."""

    positions: IntArray  # (n,) of entries, sorted
    order: IntArray  # (n,) indices into positions, as they were drawn
    note: str


def draw_sample(scan: Scan, *, images: int | AsManyAsFit | None, seed: int) -> DrawnFiles:
    """At most ``images`` entries, drawn by chance; None: all.

    The draw goes by the names of the files: a smaller one is part of a larger one, and most of it stays where files
    come or go.
    """
    count = len(scan.entries)
    most, why = _size(scan, images)
    chances = np.array([_chance(entry.path, seed=seed) for entry in scan.entries], dtype=np.uint64)
    drawn = np.argsort(chances, kind="stable")[:most]
    positions = np.sort(drawn).astype(np.int64)
    extent = f"all {count:,}" if count <= most else f"{most:,} of {count:,}"
    note = f"no labels: {extent} files were screened"
    return DrawnFiles(
        positions=positions,
        order=np.searchsorted(positions, drawn),
        note=note if count <= most else f"{note}, {why}",
    )


def _chance(path: str, *, seed: int) -> int:
    """A number drawn for a path."""
    named = f"{seed} {path}".encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(named, digest_size=8).digest())


def _size(scan: Scan, images: int | AsManyAsFit | None) -> tuple[int, str]:
    """How many entries to draw at most, and why."""
    count = len(scan.entries)
    match images:
        case None:
            return count, ""
        case int():
            return images, "drawn by chance (--images)"
        case AsManyAsFit(earlier=int(earlier)):
            return earlier, "drawn by chance, as many as this search began with"
        case _:
            return (LEAST, "") if count <= LEAST else _fitting(scan, images)


def _fitting(scan: Scan, size: AsManyAsFit) -> tuple[int, str]:
    """The number of images that fit, and what bounds it."""
    embedding, reading = size.image_seconds(), _reading_seconds(scan)
    by_time = size.seconds / max(embedding + reading, 1e-9)
    kept = _NUMBER * size.candidates * (_WIDTH + _COSINES * len(scan.classes))
    by_memory = _MEMORY / kept
    steps = math.floor(math.log(max(min(by_time, by_memory) / LEAST, 1.0), _STEP) + 1e-9)
    most = round(LEAST * _STEP**steps)
    takes = f"one should take {milliseconds(reading)} to read and {milliseconds(embedding)} in all candidates"
    if by_time < LEAST:
        why = f"the least that are: more than {size.seconds:.0f} seconds"
    elif by_time <= by_memory:
        why = f"as many as fit in {size.seconds:.0f} seconds"
    else:
        why = f"as many as fit in {byte_count(_MEMORY)}"
        takes = f"all candidates keep {byte_count(kept)} of each"
    return most, f"drawn by chance, {why} ({takes}; --images chooses another number)"


def _reading_seconds(scan: Scan) -> float:
    """Seconds to decode an image, by some that lie side by side in the middle, since tables are read in blocks.

    Not the first time: then decoders are loaded, which takes as long as hundreds of small images.
    """
    count = len(scan.entries)
    first = max(0, (count - _TIMED) // 2)
    positions = np.arange(first, min(count, first + _TIMED), dtype=np.int64)
    _read_all(scan, positions[:1])
    began = time.perf_counter()
    _read_all(scan, positions)
    return (time.perf_counter() - began) / len(positions)


def _read_all(scan: Scan, positions: IntArray) -> None:
    for _ in in_threads(_read, scan.source.images(positions)):
        pass


def _read(source: Path | bytes) -> None:
    with suppress(ImageError):  # whoever loads the task lists it
        decode_image(source)


def task_without_labels(images: KnownImages, *, sample: DrawnFiles, seed: int, notes: tuple[str, ...]) -> Task:
    """The task of a drawn sample without labels: its images, each different, and no split.

    Raises:
        TaskError: not one image can be decoded.
    """
    images.usable()
    drawn, copies = _distinct(images, order=sample.order)
    good, scan, told = sorted(drawn), images.scan, images.scan.declaration
    digests, nobody = [images.identities[row].digest for row in good], np.zeros(len(good), dtype=np.int64)
    texts: list[Json] = [list(scan.classes), list(scan.prompts), list(told.templates)]
    task = images.task(
        good,
        labels=nobody + UNLABELLED,
        peers=nobody,
        copies=copies,
        digest=digest("no labels", *texts, list(digests)),
    )
    draw = Draw(
        files=len(images.positions),
        order=np.searchsorted(good, drawn),
        ids=np.array([int(digest(one)[:_DIGITS], 16) for one in digests], dtype=np.int64),
        texts=_texts(scan.prompts, told.templates),
    )
    return replace(task, seed=seed, notes=(*scan.notes, *notes), draw=draw, names_templates=told.names_templates)


def _distinct(images: KnownImages, *, order: IntArray) -> tuple[list[int], list[BadFile]]:
    """Images that can be decoded, one of each picture: that which was drawn first; and copies of these."""
    first: dict[str, str] = {}
    good: list[int] = []
    copies: list[BadFile] = []
    entries = images.entries
    for place in order.tolist():
        path, seen = printable(entries[place].path), images.identities[place].digest
        if seen and first.setdefault(seen, path) == path:
            good.append(place)
        elif seen:
            copies.append(a_copy(path, of=first[seen]))
    return good, copies


def spoken_in(task: Task, templates: Sequence[str]) -> Task:
    """The same images without labels, and class names in these templates.

    Raises:
        ValueError: the task has labels.
    """
    if task.draw is None:
        raise ValueError(f"templates are chosen for a task without labels, but got {task.name!r}")
    return replace(
        task,
        templates=tuple(templates),
        digest=digest(task.digest, list(templates)),
        draw=replace(task.draw, texts=_texts(task.prompts, templates)),
    )


def _texts(prompts: Sequence[str], templates: Sequence[str]) -> str:
    return digest("no labels", list(prompts), list(templates))


def with_pool_beside(task: Task, scan: Scan, *, reading: Reading) -> Task:
    """The task of a partly labelled folder with a draw of its unlabelled files, so many that screenings see 160 images.

    Raises:
        WorkdirError: the decoded images cannot be written.
    """
    count, most = len(scan.unlabelled), split.SCREENED - len(task.support) - len(task.others)
    if not count:
        return task
    there = f"files without a label: {count:,}"
    if most <= 0:
        return replace(task, notes=(*task.notes, f"{there}; not used"))
    pool = replace(
        scan,
        entries=tuple(ListedImage(path=path, label="", split=None) for path in scan.unlabelled),
        source=Files(root=scan.root, paths=scan.unlabelled),
        stray=(),
        notes=(),
        labelled=False,
    )
    sample = draw_sample(pool, images=most, seed=task.seed)
    try:
        with known_images(pool, sample.positions, by="pixels", reading=reading) as images:
            beside = task_without_labels(images, sample=sample, seed=task.seed, notes=())
    except TaskError as error:
        return replace(task, notes=(*task.notes, f"{there}; not used: {error}"))
    note = f"{there}; the ranking looks at {len(beside.paths)} of them, no model learns from them"
    return replace(task, beside=beside, notes=(*task.notes, note))
