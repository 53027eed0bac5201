"""Consensus: how often a candidate names the class that the others name. No label is needed.

Classifiers that are right agree with each other, those that are wrong each err in their own way: the idea of Dawid &
Skene (1979) and of Parisi et al., "Ranking and combining multiple predictors without labeled data" (PNAS 2014). Votes
are weighted by how clearly a candidate separates its first class from its second, since in a zoo of which half the
models are at chance a plain majority is none (docs/choices.md has the comparison). Near copies of one model share one
vote, and do not vote on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.records import FloatArray, IntArray

_SHARPNESS: Final = 3.0  # a candidate one standard deviation clearer has e^3 votes
LEAST_VOTERS: Final = 3  # of two, neither can be told from the other
_ROUNDING: Final = 1e-6  # share of votes that copies are left by the rounding of their embeddings
_TIE: Final = 1e-9  # relative difference of votes that is rounding
_POWER: Final = 4  # of the correlation: copies count as one, strangers hardly as kin; our own choice
_COMPARED: Final = 100  # images by which candidates are told to be alike


def compared(n: int, *, most: int = _COMPARED) -> IntArray:
    """Which of n images tell how alike candidates are: ``most``, spread over them, or all."""
    return np.unique(np.linspace(0, n - 1, most).astype(np.int64))


def likeness(cosines: Sequence[FloatArray]) -> FloatArray:
    """How alike M candidates decide: (M, M) in [0, 1], 1 for copies and on the diagonal.

    The fourth power of the correlation, where it is positive, of their cosines (n, K) with classes, which are centred
    over the classes of an image and over images: what a logit scale or a favourite class does is no likeness.
    """
    rows = []
    for cosine in cosines:
        at = compared(len(cosine))
        centred = cosine[at] - cosine[at].mean(axis=1, keepdims=True)
        centred = (centred - centred.mean(axis=0)).ravel()
        rows.append(centred / max(float(np.linalg.norm(centred)), 1e-12))
    unit = np.stack(rows)
    found = np.clip(unit @ unit.T, 0.0, 1.0) ** _POWER
    np.fill_diagonal(found, 1.0)
    return np.asarray(found, dtype=np.float64)


def vote_weights(margins: FloatArray, kin: FloatArray) -> FloatArray:
    """Weights (M,) of votes, at most 1: exp(3 z) over that of the clearest, shared among those that are alike."""
    z = standardise(margins)
    return np.asarray(np.exp(_SHARPNESS * (z - z.max())) / kin.sum(axis=1), dtype=np.float64)


def others_votes(weight: FloatArray, kin: FloatArray) -> FloatArray:
    """Votes (M,) on a candidate whose likeness to all is ``kin`` (M,); all 0 where all are copies of it."""
    left = weight * (1.0 - kin)
    return left if left.sum() > _ROUNDING * weight.sum() else np.zeros_like(left)


def consensus(
    predicted: IntArray, margins: FloatArray, *, n_classes: int, alike: FloatArray | None = None
) -> FloatArray:
    """Share (M,) of images on which a candidate names the class that the others, without it, give most votes.

    Args:
        predicted: (M, n) class 0..K-1 that each candidate gives to each image; the same images for all.
        margins: (M,) how clearly each candidate decides, larger is clearer; the weight of its vote is exp(3 z), z being
            its standardised margin. NaN counts as average.
        n_classes: K.
        alike: (M, M) from `likeness`: a vote is divided by the number of its likes, and counts for one of them by what
            is left of 1; None: all are strangers.

    Returns:
        Shares in [0, 1]; NaN for fewer than three candidates, no image, or one that is compared with copies alone.
    """
    m, n = predicted.shape
    if m < LEAST_VOTERS or n == 0:
        return np.full(m, np.nan)
    kin = np.eye(m) if alike is None else alike
    weight = vote_weights(margins, kin)
    size, images = max(n_classes, 2), np.arange(n)
    cells = images * size + predicted  # (M, n) places in the table of votes
    found = np.empty(m)
    for i in range(m):
        said = others_votes(weight, kin[i])
        if not said.any():
            found[i] = np.nan
            continue
        votes = np.bincount(cells.ravel(), weights=np.repeat(said, n), minlength=n * size).reshape(n, size)
        own = votes[images, predicted[i]].copy()
        votes[images, predicted[i]] = -1.0
        found[i] = np.mean(own > votes.max(axis=1) * (1.0 + _TIE))
    return found
