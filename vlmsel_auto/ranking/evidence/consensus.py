"""Consensus: how often a candidate names the class that the others name. No label is needed.

Classifiers that are right agree with each other, those that are wrong each err in their own way: the idea of Dawid &
Skene (1979) and of Parisi et al., "Ranking and combining multiple predictors without labeled data" (PNAS 2014). Votes
are weighted by how clearly a candidate separates its first class from its second, since in a zoo of which half the
models are at chance a plain majority is none (docs/ranking.md has the comparison).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.records import FloatArray, IntArray

_SHARPNESS: Final = 3.0  # a candidate one standard deviation clearer has e^3 votes
_LEAST_VOTERS: Final = 3  # of two, neither can be told from the other


def consensus(predicted: IntArray, margins: FloatArray, *, n_classes: int) -> FloatArray:
    """Share (M,) of images on which a candidate names the class that the others, without it, give most votes.

    Args:
        predicted: (M, n) class 0..K-1 that each candidate gives to each image; the same images for all.
        margins: (M,) how clearly each candidate decides, larger is clearer; the weight of its vote is exp(3 z), z being
            its standardised margin. NaN counts as average.
        n_classes: K.

    Returns:
        Shares in [0, 1]; NaN for fewer than three candidates or no image.
    """
    m, n = predicted.shape
    if m < _LEAST_VOTERS or n == 0:
        return np.full(m, np.nan)
    z = standardise(margins)
    weight = np.exp(_SHARPNESS * (z - z.max()))
    votes = np.zeros((n, max(n_classes, 2)))
    images = np.broadcast_to(np.arange(n), (m, n))
    np.add.at(votes, (images, predicted), weight[:, None])
    last = np.partition(votes, -2, axis=1)
    best, second = last[:, -1], last[:, -2]
    own = votes[images, predicted]
    rival = np.where(own >= best, second, best)  # the best of the other classes
    return np.asarray((own - weight[:, None] > rival).mean(axis=1), dtype=np.float64)
