"""Where a classifier is right and wrong: recall by class, confusions, reliability, and the images that tell most.

Numbers only, and the records of them in ``report.json``. n images, K classes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmsel_auto.intervals import wilson
from vlmsel_auto.records import FloatArray, IntArray, Interval

BINS: Final = 15  # of the highest probability, equally wide, as in the calibration error
SHOWN: Final = 12  # images of a kind
_SIDE: Final = 96  # pixels of a thumbnail, at most
_QUALITY: Final = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRecall:
    """Of the images of a class, how many were recognised."""

    name: str
    images: int
    right: int
    predicted: int  # images of any class that were taken for this one
    interval: Interval | None  # 95 %, of right / images; None: no image


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityBin:
    """Images whose highest probability lies in a bin. Shares in [0, 1]."""

    images: int
    probability: float  # mean of the highest
    right: float  # share of the images


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """An image, what it shows and what the classifier says."""

    path: str  # relative to the task folder
    true: str
    predicted: str
    probability: float  # of the predicted class
    true_probability: float
    thumbnail: str = ""  # a data URI; empty: pictures are not wanted


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistakes:
    """A classifier on images that it never saw."""

    split: str  # "test" or "validation"
    images: int
    classes: tuple[ClassRecall, ...]  # in the task's order
    confusions: tuple[Confusion, ...]  # the most frequent first
    reliability: tuple[ReliabilityBin, ...]  # bins that hold an image, the least probable first
    surest: tuple[Judged, ...]  # wrong ones, the surest first
    unsure: tuple[Judged, ...]  # the least sure first, right or wrong


def judge(
    probabilities: FloatArray, *, labels: IntArray, classes: Sequence[str], paths: Sequence[str], split: str
) -> Mistakes:
    """Compare probabilities (n, K) with labels (n,) in 0..K-1 of the images at ``paths``; n is at least 1."""
    predicted, highest = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = predicted != labels
    pairs = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(pairs, (labels, predicted), 1)
    off = [(int(pairs[t, p]), t, p) for t, p in np.argwhere(pairs).tolist() if t != p]
    off.sort(key=lambda each: (-each[0], each[1], each[2]))

    def judged(rows: IntArray) -> tuple[Judged, ...]:
        first = rows[:SHOWN]
        return judged_images(
            probabilities[first], labels=labels[first], classes=classes, paths=[paths[row] for row in first]
        )

    order = np.argsort(highest, kind="stable")
    return Mistakes(
        split=split,
        images=len(labels),
        classes=tuple(
            ClassRecall(
                name=name,
                images=int(total),
                right=int(right),
                predicted=int(taken),
                interval=wilson(int(right), int(total)) if total else None,
            )
            for name, total, right, taken in zip(
                classes, pairs.sum(axis=1), pairs.diagonal(), pairs.sum(axis=0), strict=True
            )
        ),
        confusions=tuple(Confusion(true=classes[t], predicted=classes[p], images=count) for count, t, p in off),
        reliability=_reliability(highest, ~wrong),
        surest=judged(order[::-1][wrong[order[::-1]]]),
        unsure=judged(order),
    )


def judged_images(
    probabilities: FloatArray, *, labels: IntArray, classes: Sequence[str], paths: Sequence[str]
) -> tuple[Judged, ...]:
    """What probabilities (n, K) say of n images with labels (n,) in 0..K-1, in their order."""
    return tuple(
        Judged(
            path=path,
            true=classes[label],
            predicted=classes[int(said.argmax())],
            probability=float(said.max()),
            true_probability=float(said[label]),
        )
        for said, label, path in zip(probabilities, labels.tolist(), paths, strict=True)
    )


def _reliability(highest: FloatArray, right: NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    bins = np.minimum((highest * BINS).astype(np.int64), BINS - 1)
    return tuple(
        ReliabilityBin(
            images=int((bins == each).sum()),
            probability=float(highest[bins == each].mean()),
            right=float(right[bins == each].mean()),
        )
        for each in np.unique(bins)
    )


def with_thumbnails(judged: Sequence[Judged], pixels: Sequence[NDArray[np.uint8]]) -> tuple[Judged, ...]:
    """The same images with their pictures; ``pixels`` are uint8 (H, W, 3), in their order."""
    return tuple(replace(one, thumbnail=thumbnail(image)) for one, image in zip(judged, pixels, strict=True))


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """A small JPEG of an image, uint8 (H, W, 3), as a data URI."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
