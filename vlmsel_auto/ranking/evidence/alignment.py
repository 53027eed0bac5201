"""Alignment: whether images that are near each other to a candidate are so to the others. Neither labels nor texts.

Good image towers agree more on which images are alike than poor ones do: Huh, Cheung, Wang, Isola, "The Platonic
Representation Hypothesis" (ICML 2024), who compare the ten nearest neighbours of two models (mutual nearest-neighbour
metric). Here a candidate is compared with all others at once, whose votes weigh as those of the consensus do, and by
the mean log share of votes instead of a plain share: our own choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from vlmsel_auto.ranking.evidence.consensus import LEAST_VOTERS, compared, others_votes, vote_weights
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.records import FloatArray, IntArray

_NEIGHBOURS: Final = 10
_NEAR: Final = 8  # images for each neighbour: among 32, ten would be no near ones; our own choice
_LEAST: Final = 24  # images
COMPARED: Final = 255  # images at most: a library's file has a byte for each place
_FLOOR: Final = 0.02  # a share of votes, so that one neighbour that nobody shares does not decide; our own choice


def nearest(features: FloatArray) -> IntArray:
    """Nearest neighbours of each image.

    Args:
        features: (N, D) image embeddings of any scale, N >= 1. Of more than 255 images, 255 spread over them count.

    Returns:
        (n, k) places among the n <= 255 compared images, the nearest first, by the cosine of centred embeddings; k is
        an eighth of the images, at most 10, and 0 for fewer than 24.
    """
    chosen = features[compared(len(features), most=COMPARED)]
    unit = unit_rows(chosen - chosen.mean(axis=0))
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1, kind="stable")
    count = min(_NEIGHBOURS, len(chosen) // _NEAR) if len(chosen) >= _LEAST else 0
    return np.asarray(order[:, :count], dtype=np.int64)


def alignment(neighbours: Sequence[IntArray], margins: FloatArray, *, alike: FloatArray | None = None) -> FloatArray:
    """Mean log share (M,) of the others' votes that a candidate's neighbours get; higher is better.

    Args:
        neighbours: of each candidate (n, k) from `nearest`; the same images for all.
        margins: (M,) how clearly each candidate decides, the weight of its vote, see `consensus`.
        alike: (M, M) from `likeness`, see `consensus`.

    Returns:
        At most log(1.02); NaN for fewer than three candidates, no neighbour, or one that is compared with copies alone.
    """
    m = len(neighbours)
    if m < LEAST_VOTERS or not neighbours[0].size:
        return np.full(m, np.nan)
    n, k = neighbours[0].shape
    pairs = (np.arange(n)[:, None] * n + np.stack(neighbours)).reshape(m, n * k)  # places in the table of pairs
    kin = np.eye(m) if alike is None else alike
    weight = vote_weights(margins, kin)
    everyone = np.bincount(pairs.ravel(), weights=np.repeat(weight, n * k), minlength=n * n)
    named = np.zeros((m, n * n), dtype=np.bool_)
    np.put_along_axis(named, pairs, values=True, axis=1)
    found = np.empty(m)
    for i in range(m):
        voters = others_votes(weight, kin[i])
        own = np.flatnonzero(kin[i])  # whose votes do not count, or not in full: its own, and those of its likes
        votes = everyone[pairs[i]] - (weight * kin[i])[own] @ named[own][:, pairs[i]]
        share = np.maximum(votes, 0.0) / voters.sum() if voters.any() else np.full(n * k, np.nan)
        found[i] = np.mean(np.log(share + _FLOOR))
    return found
