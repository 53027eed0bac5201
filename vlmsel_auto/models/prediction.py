"""Class probabilities of images by an exported model, on the very pixels that its trial saw."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from vlmsel_auto.errors import ImageError, TaskError
from vlmsel_auto.events import Notice, Sink, StageFinished, StageProgress, StageStarted, discard
from vlmsel_auto.models.exported import ExportedModel, load_exported
from vlmsel_auto.models.familiar import UNLIKE
from vlmsel_auto.models.selective import level_for
from vlmsel_auto.records import BadFile, FloatArray, ImageView, IntArray
from vlmsel_auto.tasks.decode import in_threads
from vlmsel_auto.tasks.file_names import is_folder
from vlmsel_auto.tasks.preprocessing import read_view
from vlmsel_auto.units import percent

Paths: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Prediction:
    """What a model says of one file."""

    path: Path
    classes: tuple[str, ...]  # (K,)
    probabilities: FloatArray | None  # (K,), sum 1; None: no usable image
    note: str  # why there is no image, or what had to be converted; empty for everyday files
    label: str | None = None  # the most probable class; None: none is to be named, or no usable image
    doubt: str = ""  # why the class may be wrong, or is not named


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a model says of n images, in the order they were given (folders in sorted order)."""

    paths: tuple[Path, ...]  # (n,)
    classes: tuple[str, ...]  # (K,)
    probabilities: FloatArray  # (n, K), rows sum to 1
    bad_files: tuple[BadFile, ...]  # left out, with the reason; or converted and used
    labels: tuple[str | None, ...]  # (n,) most probable class of each image; None: none is to be named
    doubts: tuple[str, ...]  # (n,) why the class may be wrong, or is not named; mostly empty

    @property
    def best(self) -> IntArray:
        """(n,) index of each image's most probable class."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ImagePixels:
    """A file as a model reads it."""

    path: Path
    pixels: tuple[NDArray[np.uint8], ...] | None  # (S, S, 3), RGB, in each view; None: no usable image
    note: str


def predict(
    model_dir: str | PathLike[str],
    images: Paths,
    *,
    accuracy: float | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = 64,
    sink: Sink = discard,
) -> Predictions:
    """Classify images with an exported model, or with an exported ensemble.

    Args:
        model_dir: the exported folder.
        images: files, and folders of which every file below is taken (hidden ones are not); one alone needs no list.
        accuracy: name classes only as far as such a share of them is right, in (0, 1), which held-out images assure at
            a confidence of 90 %; None: name one for every image.
        device: where to compute.
        batch_size: images at a time.
        sink: takes the events of stage "predict".

    Raises:
        CandidateError: ``model_dir`` is no export, or is damaged.
        InputError: no held-out images assure the accuracy, at whatever threshold.
        TrialUnavailable: its weights cannot be loaded.
        TaskError: there is not one usable image.
        TypeError: an image is no path.
        ValueError: ``batch_size`` is not positive.
    """
    found = iter_predictions(model_dir, images, accuracy=accuracy, device=device, batch_size=batch_size, sink=sink)
    return collect(found)


def collect(found: Iterable[Prediction]) -> Predictions:
    """Gather predictions, of which at least one is of a usable image."""
    every = list(found)
    good = [each for each in every if each.probabilities is not None]
    return Predictions(
        paths=tuple(each.path for each in good),
        classes=every[0].classes,
        probabilities=np.stack([each.probabilities for each in good if each.probabilities is not None]),
        bad_files=tuple(
            BadFile(path=str(each.path), reason=each.note, used=each.probabilities is not None)
            for each in every
            if each.note
        ),
        labels=tuple(each.label for each in good),
        doubts=tuple(each.doubt for each in good),
    )


def iter_predictions(
    model_dir: str | PathLike[str],
    images: Paths,
    *,
    accuracy: float | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = 64,
    sink: Sink = discard,
) -> Generator[Prediction]:
    """Classify any number of images, one after the other, files that are none among them.

    Memory holds the model, a batch and the names in one folder, however many images there are. Arguments and errors are
    those of `predict`; that not one image was usable is raised at the end.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but got {batch_size!r}")
    given = as_paths(images)
    total = sum(1 for _ in image_files(given))
    if not total:
        raise TaskError(f"At least one image is needed, but got {[str(each) for each in given]!r}")
    began = time.monotonic()
    model = load_exported(Path(model_dir), device=device)
    least = None
    if accuracy is not None:
        level = level_for(model.answers, accuracy)
        least, share = level.threshold, percent(level.coverage, digits=0)
        sink(Notice(text=f"a class from a probability of {least:.3f} on, as {share} of the held-out images have"))
    sink(StageStarted(stage="predict", total=total))
    done, usable, first = 0, 0, None
    for batch in read_batches(image_files(given), views=model.views, size=batch_size):
        for each in _classify(model, batch, least=least):
            usable += each.probabilities is not None
            first = first or each
            yield each
        done += len(batch)
        sink(StageProgress(stage="predict", done=done))
    if first is not None and not usable:
        none = "The file is no usable image" if done == 1 else f"Not one of the {done:,} files is a usable image"
        raise TaskError(f"{none}, but got {str(first.path)!r}: {first.note}")
    sink(StageFinished(stage="predict", seconds=time.monotonic() - began))


def read_batches(files: Iterable[Path], *, views: Sequence[ImageView], size: int) -> Generator[tuple[ImagePixels, ...]]:
    """Read files, ``size`` at a time and a few ahead, in each of the views that a model takes."""
    with closing(in_threads(partial(_read, views=views), files)) as read:
        while batch := tuple(islice(read, size)):
            yield batch


def stack(batch: Sequence[ImagePixels]) -> tuple[NDArray[np.uint8], ...]:
    """The usable images of a batch, uint8 (n, S, S, 3) in each view; none where there is no usable image."""
    usable = [each.pixels for each in batch if each.pixels is not None]
    return tuple(np.stack(view) for view in zip(*usable, strict=True))


@torch.inference_mode()
def judge(model: ExportedModel, pixels: Sequence[NDArray[np.uint8]]) -> tuple[FloatArray, FloatArray]:
    """Class probabilities (n, K) of images, uint8 (n, S, S, 3) in each view, and how unlike the known ones (n,)."""
    logits, unlike = model(*(torch.tensor(each) for each in pixels))
    return logits.double().softmax(dim=-1).cpu().numpy(), unlike.double().cpu().numpy()


def _classify(model: ExportedModel, batch: Sequence[ImagePixels], *, least: float | None) -> Iterator[Prediction]:
    """Judge a batch; with a ``least`` probability what is in doubt gets no class."""
    pixels = stack(batch)
    rows = iter(zip(*judge(model, pixels), strict=True) if pixels else ())
    for each in batch:
        if each.pixels is None:
            yield Prediction(path=each.path, classes=model.classes, probabilities=None, note=each.note)
            continue
        row, unlike = next(rows)
        doubt, highest = UNLIKE if unlike > 1 else "", float(row.max())
        if not doubt and least is not None and highest < least:
            doubt = f"not sure enough: {highest:.3f}, below {least:.3f}"
        label = None if doubt and least is not None else model.classes[int(row.argmax())]
        yield Prediction(
            path=each.path, classes=model.classes, probabilities=row, note=each.note, label=label, doubt=doubt
        )


def _read(path: Path, *, views: Sequence[ImageView]) -> ImagePixels:
    """The pixels, and what had to be converted or why there are none."""
    try:
        found = [read_view(path, view) for view in views]
    except ImageError as error:
        return ImagePixels(path=path, pixels=None, note=str(error))
    return ImagePixels(path=path, pixels=tuple(pixels for pixels, _ in found), note=found[0][1])


def as_paths(images: Paths) -> tuple[Path, ...]:
    """One path or several.

    Raises:
        TypeError: what is given is none, such as an image in memory.
    """
    several = (images,) if isinstance(images, (str, PathLike)) else tuple(images)
    for each in several:
        if not isinstance(each, (str, PathLike)):
            raise TypeError(f"images must be paths of files or folders, but got {type(each).__name__}")
    return tuple(map(Path, several))


def image_files(images: Sequence[Path]) -> Iterator[Path]:
    """Files, and those below folders in sorted order, each once. Hidden ones below folders are left out.

    A folder that cannot be listed stands for its files, and is told as they are.
    """
    given = set(images)
    overlap = len(given) < len(images) or any(not given.isdisjoint(each.parents) for each in images)
    found = _walk(images)
    return iter(dict.fromkeys(found)) if overlap else found  # only where it must be, every name is held


def _walk(images: Iterable[Path]) -> Iterator[Path]:
    for path in images:
        if not is_folder(path):
            yield path
            continue
        closed: list[OSError] = []
        for folder, inner, names in os.walk(path, onerror=closed.append):  # links to folders are not followed: no loops
            yield from _drained(closed)
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))
        yield from _drained(closed)


def _drained(closed: list[OSError]) -> Iterator[Path]:
    """The folders that were not listed since the last call."""
    yield from (Path(error.filename) for error in closed)
    closed.clear()
