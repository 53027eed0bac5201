"""Default hyperparameters of each candidate, learned from past trials by method and tower family. Pure.

A first trial has no experience of its own task to go by, so it begins where trials of the same method and tower family
went well before. Form (our own choice): within one task and candidate, trials are weighted by how near they came to
the best of them; the weighted mean point of each such group is one vote, and votes are shrunk towards the method's mean
over all families, which is shrunk towards the built-in default. Few trials therefore move little, and trials that were
all made at the default move nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmsel_auto.records import Candidate, FloatArray, Method
from vlmsel_auto.trials.space import Point

__all__ = ["Defaults", "PastTrial", "learn_defaults"]

_NEAR = 0.02  # of the metric: a trial that is worse by this weighs 1 / e
_SHRINK = 4.0  # votes that the mean above counts for

Defaults = Mapping[tuple[str, Method], Point]


@dataclass(frozen=True, kw_only=True, slots=True)
class PastTrial:
    """A complete trial of an earlier search."""

    task: str  # digest
    candidate: str
    family: str
    method: Method
    point: Point  # of the unit cube of its method and family
    value: float  # validation metric, in [0, 1]


def learn_defaults(
    past: Sequence[PastTrial], *, candidates: Sequence[Candidate], methods: Sequence[Method], without: str = ""
) -> Defaults:
    """Where the first trial of each candidate and method should be.

    Args:
        past: trials of earlier searches, in any order.
        candidates: who will be tuned.
        methods: how.
        without: digest of a task whose trials are left out: the target's own.
    """
    found: dict[tuple[str, Method], Point] = {}
    for method in methods:
        votes = _votes([each for each in past if each.method == method and each.task != without])
        everyone = _shrunk([vote for _, vote in votes], towards=_array(Point()))
        by_family = {
            family: _shrunk([vote for of, vote in votes if of == family], towards=everyone)
            for family in {each.family for each in candidates}
        }
        for each in candidates:
            found[each.id, method] = _point(by_family[each.family])
    return found


def _votes(past: Sequence[PastTrial]) -> list[tuple[str, FloatArray]]:
    """(family, mean point) of each task and candidate that was tried more than once."""
    groups: dict[tuple[str, str], list[PastTrial]] = {}
    for each in past:
        groups.setdefault((each.task, each.candidate), []).append(each)
    votes = []
    for _, group in sorted(groups.items()):
        if len(group) > 1:
            values = np.array([each.value for each in group])
            weights = np.exp((values - values.max()) / _NEAR)
            points = np.stack([_array(each.point) for each in group])
            votes.append((group[0].family, weights @ points / weights.sum()))
    return votes


def _shrunk(votes: Sequence[FloatArray], *, towards: FloatArray) -> FloatArray:
    total: FloatArray = (_SHRINK * towards + sum(votes, np.zeros(4))) / (_SHRINK + len(votes))
    return total


def _array(point: Point) -> FloatArray:
    return np.array([point.learning_rate, point.weight_decay, point.augmentation, point.epochs])


def _point(values: FloatArray) -> Point:
    rate, decay, augmentation, epochs = (min(1.0, max(0.0, float(value))) for value in values)
    return Point(learning_rate=rate, weight_decay=decay, augmentation=augmentation, epochs=epochs)
