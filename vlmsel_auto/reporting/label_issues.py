"""Labels that are probably wrong: images that every model misses, and near-duplicates that are labelled differently.

The thresholds are published ones: those of confident learning (Northcutt, Jiang, Chuang 2021, arXiv 1911.00068) on
images that all models get wrong, and cleanlab's for near-duplicates. Where cleanlab compares embeddings, miniatures are
compared here: in embeddings, other pictures of the same thing are as close as one that was saved again. Numbers only,
and the records of them in ``report.json``. n images, N images of the task, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from vlmsel_auto.records import FloatArray, IntArray
from vlmsel_auto.reporting.mistakes import Judged

FEWEST_MODELS: Final = 2  # that must have judged an image: what one alone misses is one of its mistakes
CLOSE: Final = 0.13  # of the median distance to the nearest image: cleanlab's default for near-duplicates
_SIDE: Final = 16  # pixels of a miniature
_BLOCK: Final = 1024  # images whose distances to all others are held at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledImage:
    """An image and its class."""

    path: str  # relative to the task folder
    label: str
    thumbnail: str = ""  # a data URI; empty: pictures are not wanted


@dataclass(frozen=True, kw_only=True, slots=True)
class NearDuplicates:
    """Two images that look the same and have different labels."""

    first: LabelledImage
    second: LabelledImage
    distance: float  # 1 - correlation of their grey miniatures


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelIssues:
    """Images whose labels somebody should check; at most `mistakes.SHOWN` of a kind, the surest first."""

    models: int  # whose trials judged images that they did not learn from
    judged: int  # images that at least two of them judged
    missed: int  # of these, images that all of them get wrong
    suspects: tuple[Judged, ...]  # of these, images that all models together are as sure of as of that class's own
    suspected: int
    compared: int  # images among which near-duplicates were sought; 0: there are too many
    near_duplicates: tuple[NearDuplicates, ...]
    near_duplicate_pairs: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Opinion:
    """What one model says of images that it did not learn from."""

    rows: IntArray  # (n,) images of the task
    logs: FloatArray  # (n, K) log-probabilities


@dataclass(frozen=True, kw_only=True, eq=False)
class Suspicion:
    """What all models together say of the images."""

    judged: IntArray  # images that at least `FEWEST_MODELS` judged
    missed: IntArray  # of these, images that every one of them got wrong
    suspects: IntArray  # of these, probably mislabelled, the surest first
    probabilities: FloatArray  # (N, K) softmax of the mean log-probabilities


def suspect(opinions: Sequence[Opinion], *, labels: IntArray, n_classes: int) -> Suspicion:
    """Find images whose label all models contradict; ``labels`` (N,) are in 0..K-1.

    Such an image is a suspect where the models' pooled probability of another class is at least what it is, on
    average, for the images labelled with that class: the threshold of confident learning.
    """
    total = np.zeros((len(labels), n_classes))
    models = np.zeros(len(labels), dtype=np.int64)
    right = np.zeros(len(labels), dtype=np.int64)
    for one in opinions:
        total[one.rows] += one.logs
        models[one.rows] += 1
        right[one.rows] += one.logs.argmax(axis=1) == labels[one.rows]
    probabilities = softmax(total / np.maximum(models, 1)[:, None], axis=1)
    judged = models >= FEWEST_MODELS
    own = probabilities[np.arange(len(labels)), labels]
    thresholds = np.array(
        [own[judged & (labels == k)].mean() if (judged & (labels == k)).any() else np.inf for k in range(n_classes)]
    )
    said = probabilities.argmax(axis=1)
    highest = probabilities.max(axis=1)
    missed = judged & (right == 0) & (said != labels)
    suspects = np.flatnonzero(missed & (highest >= thresholds[said]))
    return Suspicion(
        judged=np.flatnonzero(judged),
        missed=np.flatnonzero(missed),
        suspects=suspects[np.argsort(-highest[suspects], kind="stable")],
        probabilities=probabilities,
    )


def miniatures(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey miniatures of images, uint8 (n, H, H, 3), as vectors (n, D) of mean 0 and length 1; D is 256 from H = 16."""
    count, height = pixels.shape[:2]
    side = min(_SIDE, height)
    step = height // side
    edge = (height - side * step) // 2  # what does not divide is cut off around
    inner = pixels[:, edge : edge + side * step, edge : edge + side * step]
    grey = inner.reshape(count, side, step, side, step, 3).mean(axis=(2, 4, 5), dtype=np.float32).reshape(count, -1)
    grey -= grey.mean(axis=1, keepdims=True)
    found: NDArray[np.float32] = grey / np.maximum(np.linalg.norm(grey, axis=1, keepdims=True), 1e-6)
    return found


def contradicting_pairs(vectors: NDArray[np.float32], labels: IntArray) -> list[tuple[int, int, float]]:
    """Pairs of near-duplicates with different labels: (row, row, 1 - correlation), the closest first.

    Two images are near-duplicates where their distance is below `CLOSE` times the median, over all images, of the
    distance to the nearest other one. Of each image only the nearest one of another class counts.

    Args:
        vectors: (n, D), by `miniatures`.
        labels: (n,).
    """
    count = len(labels)
    if count < 3:  # noqa: PLR2004 - a median of distances needs a third image
        return []
    nearest = np.empty(count)
    other, to_other = np.empty(count, dtype=np.int64), np.empty(count)
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        distance = np.maximum(1.0 - vectors[rows] @ vectors.T, 0.0)
        distance[rows - start, rows] = np.inf
        nearest[rows] = distance.min(axis=1)
        distance[labels[rows, None] == labels[None, :]] = np.inf
        other[rows] = distance.argmin(axis=1)
        to_other[rows] = distance.min(axis=1)
    close = np.flatnonzero(to_other < CLOSE * np.median(nearest))
    pairs = {(min(row, int(other[row])), max(row, int(other[row]))): float(to_other[row]) for row in close.tolist()}
    return sorted(((a, b, distance) for (a, b), distance in pairs.items()), key=lambda each: (each[2], each[:2]))
