"""Labels that are probably wrong: by what models say that did not learn from them, and by near-duplicates.

Each label has a probability of being wrong. A right one has the models' pooled probability p. Wrong ones, a share e of
all, are in halves any other class alike and one that the models take the true class for: q is the probability of the
label under that. Temperature and e are those under which the given labels are most probable, (1 - e) p + e q, so e
counts what the models' own mistakes do not explain. Bayes' rule gives the odds e q : (1 - e) p, which `_SLOPE` and
`_OFFSET` calibrate to planted errors (benchmarks/labels/doubtful.py).

Near-duplicates are told by cleanlab's threshold. Where cleanlab compares embeddings, miniatures are compared here: in
embeddings, other pictures of the same thing are as close as one that was saved again. Numbers only, and the records of
them in ``report.json``. n images, N images of the task, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from vlmsel_auto.records import FloatArray, IntArray
from vlmsel_auto.reporting.mistakes import Judged
from vlmsel_auto.units import percent

_SLOPE, _OFFSET = 0.75, -0.51  # of the log-odds that a label is wrong
_PRIOR: Final = 30.0  # right labels that are taken to be known beforehand, beside one wrong one
_FITTED: Final = 10_000  # about so many images at most tell temperature and share: more are no surer
_LEAST: Final = 1e-9  # probability
_NAMED: Final = 0.5  # probability of being wrong above which a label is named
WEAK: Final = 0.2  # of swapped labels: models that would name fewer name none
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
    """Images whose labels somebody should check; at most 100 suspects and `mistakes.SHOWN` pairs, the surest first."""

    models: int  # whose trials judged images that they did not learn from
    judged: int  # images that one of them judged
    suspects: tuple[Judged, ...]  # of these, whose label is probably wrong; `true_probability`: that it is right
    suspected: int
    precision: float | None  # expected share of the suspected that is wrong; None: nothing is suspected
    power: float  # share of right labels that would be suspected, were they swapped for another class
    compared: int  # images among which near-duplicates were sought; 0: there are too many
    near_duplicates: tuple[NearDuplicates, ...]
    near_duplicate_pairs: int

    @property
    def summary(self) -> str:
        """What can be said of the labels, in one sentence."""
        named = f"of labels swapped at random they would name {percent(self.power, digits=0)}"
        if self.precision is not None:
            wrong = f"about {percent(self.precision, digits=0)} of these are expected to be so"
            return f"The models name {self.suspected} of {self.judged:,} labels as wrong; {wrong}; {named}."
        if self.power < WEAK:
            return f"The models are too weak to tell wrong labels from their own mistakes: {named}."
        return f"The models name none of {self.judged:,} labels as wrong; {named}."


@dataclass(frozen=True, kw_only=True, eq=False)
class Opinion:
    """What one model says of images that it did not learn from."""

    rows: IntArray  # (n,) images of the task
    logs: FloatArray  # (n, K) log-probabilities


@dataclass(frozen=True, kw_only=True, eq=False)
class Suspicion:
    """What all models together say of the images."""

    judged: IntArray  # (n,) images that a model judged
    suspects: IntArray  # of these, probably mislabelled, the surest first
    wrong: FloatArray  # probability that the label of each suspect is wrong
    power: float  # as in `LabelIssues`
    probabilities: FloatArray  # (N, K) at the fitted temperature, whatever the label; 0 where no model judged


def suspect(opinions: Sequence[Opinion], *, labels: IntArray, n_classes: int) -> Suspicion:
    """Find images whose label is more probably wrong than right; ``labels`` (N,) are in 0..K-1, K is at least 2."""
    total = np.zeros((len(labels), n_classes))
    models = np.zeros(len(labels), dtype=np.int64)
    for one in opinions:
        total[one.rows] += one.logs
        models[one.rows] += 1
    judged = np.flatnonzero(models)
    given = labels[judged]
    logs, log_odds = tempered(total[judged] / models[judged, None], given)
    wrong, named, power = verdict(log_odds, given)
    probabilities = np.zeros_like(total)
    probabilities[judged] = np.exp(logs)
    return Suspicion(
        judged=judged, suspects=judged[named], wrong=wrong[named], power=power, probabilities=probabilities
    )


def tempered(pooled: FloatArray, given: IntArray) -> tuple[FloatArray, FloatArray]:
    """What models say out of fold, at the temperature and share of wrong labels that the given labels tell.

    Args:
        pooled: (n, K) mean log-probabilities.
        given: (n,) labels.

    Returns:
        Log-probabilities (n, K), and the log-odds (n, K) that each class would be wrong as the label.
    """
    some = slice(None, None, max(1, len(given) // _FITTED))
    fitted, at = pooled[some], (np.arange(len(given[some])), given[some])
    others, chances = 1.0 - np.eye(pooled.shape[1]), softmax(pooled, axis=1)
    mixed = others * (chances.T @ chances + _LEAST)
    swaps = np.mean([each / each.sum(axis=1, keepdims=True) for each in (others, mixed)], axis=0)  # (K, K)
    towards = swaps[:, given[some]].T

    def cost(free: FloatArray) -> float:
        sureness, noise = free  # log 1 / temperature, log-odds of e
        logs = log_softmax(np.exp(sureness) * fitted, axis=1)
        wrong = noise + np.log(np.maximum((np.exp(logs) * towards).sum(axis=1), _LEAST))
        right = -np.logaddexp(0.0, noise)  # log(1 - e)
        return float(-np.logaddexp(logs[at], wrong).sum() - len(at[0]) * right - noise - (1 + _PRIOR) * right)

    sureness, noise = minimize(cost, np.array([0.0, -3.5]), method="Nelder-Mead").x
    logs: FloatArray = log_softmax(np.exp(sureness) * pooled, axis=1)
    log_odds: FloatArray = noise + np.log(np.maximum(np.exp(logs) @ swaps, _LEAST)) - logs
    return logs, log_odds


def verdict(
    log_odds: FloatArray, given: IntArray, *, slope: float = _SLOPE, offset: float = _OFFSET
) -> tuple[FloatArray, IntArray, float]:
    """Probability (n,) that each label is wrong, the labels that are named, the surest first, and `LabelIssues.power`.

    ``log_odds`` (n, K) are `tempered`'s; ``slope`` and ``offset`` calibrate them.
    """
    chances: FloatArray = expit(offset + slope * log_odds)
    wrong: FloatArray = chances[np.arange(len(given)), given]
    swapped = chances.size - len(given)
    power = float(((chances > _NAMED).sum() - (wrong > _NAMED).sum()) / max(1, swapped))
    surest = np.argsort(-wrong, kind="stable")
    return wrong, surest[wrong[surest] > _NAMED] if power >= WEAK else surest[:0], power


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
