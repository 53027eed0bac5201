"""Which images of a heap without labels are looked at: a draw by chance, of a given number or as many as fit a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.errors import ImageError
from vlmsel_auto.records import IntArray
from vlmsel_auto.tasks.decode import decode_image, in_threads
from vlmsel_auto.tasks.scan import Scan
from vlmsel_auto.units import byte_count, milliseconds

SAMPLE: Final = 400  # images; rankings by 80 are as good: benchmarks/without_labels_signals.py
LEAST: Final = 100  # images, whatever time they take
SECONDS: Final = 60.0  # for reading and embedding, of a sample that is as large as fits
_STEP: Final = 2 ** (1 / 2)  # sizes are steps apart: a machine that is timed a little slower draws the same sample
_TIMED: Final = 16  # images that are read to know how long one takes
_MEMORY: Final = 2**29  # bytes that what candidates keep of all images may take
_NUMBER: Final = 8  # bytes
_WIDTH: Final = 768  # numbers of an embedding, about
_COSINES: Final = 3  # numbers for an image and a class while they are compared


@dataclass(frozen=True, kw_only=True, slots=True)
class AsManyAsFit:
    """A sample as large as time and memory allow, though never below `LEAST` images.

    Sizes are `LEAST` times powers of the square root of 2, rounded down.
    """

    candidates: int
    image_seconds: Callable[[], float]  # in which all of them should embed one image; 0 where nobody knows
    seconds: float = SECONDS


def draw_sample(scan: Scan, *, images: int | AsManyAsFit, seed: int) -> tuple[IntArray, tuple[str, ...]]:
    """Sorted positions of at most ``images`` entries, drawn by chance, and a note on how many there are, and why."""
    count = len(scan.entries)
    if count <= (LEAST if isinstance(images, AsManyAsFit) else images):
        return _everything(count)
    if isinstance(images, int):
        most, why = images, "drawn by chance (--images)"
    else:
        most, why = _fitting(scan, images)
    if count <= most:
        return _everything(count)
    order = np.random.default_rng([seed, 7]).permutation(count)
    note = f"no labels: {most:,} of {count:,} files were looked at, {why}"
    return np.sort(order[:most]).astype(np.int64), (note,)


def _everything(count: int) -> tuple[IntArray, tuple[str, ...]]:
    return np.arange(count, dtype=np.int64), (f"no labels: all {count:,} files were looked at",)


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
