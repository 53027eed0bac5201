"""Held-out images that have a near copy among the images that are learned from, such as another frame of one video.

How near is near differs by task and candidate: a near copy is much closer than the thirtieth nearest image. The bounds
were chosen on 28 tasks with and without planted frames (docs/results/reliability.md). The form is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.records import FloatArray, IntArray

NEAR: Final = 0.12  # of the distance to the thirtieth nearest image
MANY: Final = 0.1  # of the held-out images: fewer are a folder's everyday copies, and move no figure by much
_BEYOND: Final = 30  # rank of that image
_FEWEST: Final = 2 * _BEYOND  # images that are learned from
_BLOCK: Final = 512  # images whose distances are held at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class NearCopies:
    """Of some held-out images those with a near copy that is learned from."""

    images: IntArray  # (m,) the nearest first
    twins: IntArray  # (m,) the image that each is near to
    compared: int

    @property
    def shows(self) -> bool:
        """Whether they are so many that figures promise too much."""
        return len(self.images) > 0 and len(self.images) >= MANY * self.compared


def near_copies(features: Sequence[FloatArray], *, held_out: IntArray, sides: IntArray) -> NearCopies:
    """Compare held-out images with those that are learned from while they are held out.

    Args:
        features: (N, D) of each of some candidates, whose distances are averaged: 1 - cosine around the mean image.
        held_out: (n,) images.
        sides: (N,) number of the part with which each image is held out; -1: it is never learned from.
    """
    unit = [unit_rows(each - each.mean(axis=0)) for each in features]
    near, twins = np.full(len(held_out), np.inf), np.zeros(len(held_out), dtype=np.int64)
    for start in range(0, len(held_out) if len(sides) >= _FEWEST else 0, _BLOCK):
        rows = held_out[start : start + _BLOCK]
        distance = np.mean([1.0 - each[rows] @ each.T for each in unit], axis=0)
        apart = (sides != sides[rows][:, None]) & (sides >= 0)
        distance = np.where(apart, np.maximum(distance, 0.0), np.inf)
        few = apart.sum(axis=1) < _FEWEST
        beyond = np.partition(distance, _BEYOND - 1, axis=1)[:, _BEYOND - 1]
        place = slice(start, start + len(rows))
        twins[place] = distance.argmin(axis=1)
        near[place] = distance.min(axis=1) / np.maximum(beyond, 1e-12)
        near[place][few] = np.inf
    order = np.argsort(near, kind="stable")
    found = order[near[order] < NEAR]
    return NearCopies(images=held_out[found], twins=twins[found], compared=len(held_out))
