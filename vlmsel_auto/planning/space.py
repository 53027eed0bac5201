"""Settings of a trial as a point of the unit cube, and where first trials begin.

Every range is centred on its default: 0.5 is always "the default of this method for this candidate", so what one
candidate teaches about learning rates carries over to the next.

A first trial has no experience of its own task to go by: it begins where trials of the same method and tower family
went well before. Within one task and candidate, past trials are weighted by how near they came to the best of them;
the weighted mean point of each such group is one vote, and votes are shrunk towards the method's mean over all
families, which is shrunk towards the built-in default. Few trials therefore move little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.records import Candidate, FloatArray, TrialSpec

Point = Mapping[str, float]  # setting -> place in [0, 1]; one that is missing is at its default, 0.5
DEFAULT: Final[Point] = MappingProxyType({})
EPOCHS: Final = "epochs"
EPOCHS_FACTOR: Final = 3.0  # tower methods take so many times fewer or more epochs than their default
_MIDDLE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A closed interval, walked linearly or on a log scale."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not self.low <= self.high or (self.log and self.low <= 0):
            raise ValueError(f"a range needs low <= high, and low > 0 on a log scale, but got {self!r}")

    @classmethod
    def around(cls, middle: float, factor: float) -> Range:
        """From ``middle / factor`` to ``middle * factor`` on a log scale."""
        return cls(low=middle / factor, high=middle * factor, log=True)

    def at(self, unit: float) -> float:
        """Value at ``unit`` in [0, 1] of the way from low to high."""
        if not 0 <= unit <= 1:
            raise ValueError(f"a place in the unit interval lies in [0, 1], but got {unit!r}")
        if unit in {0.0, 1.0}:
            return self.high if unit else self.low  # exact ends
        if self.log:
            return math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        return self.low + unit * (self.high - self.low)

    def unit(self, value: float) -> float:
        """Where ``value`` lies, 0 at low and 1 at high; values outside are clipped."""
        if self.high == self.low:
            return _MIDDLE
        if self.log:
            place = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return _clip(place)


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """What may vary for one candidate and method."""

    method: str
    ranges: Mapping[str, Range]  # by setting; epochs are rounded

    def spec(self, point: Point, *, candidate: str, seed: int, fold: int = 0) -> TrialSpec:
        """The trial at ``point``, scored on one part of the labelled images."""
        values = {name: range_.at(point.get(name, _MIDDLE)) for name, range_ in self.ranges.items()}
        epochs = round(values.pop(EPOCHS, 0.0))
        return TrialSpec(candidate=candidate, method=self.method, settings=values, epochs=epochs, seed=seed, fold=fold)

    def point(self, spec: TrialSpec) -> Point:
        """The inverse of `spec`, clipped to the cube; epochs are whole numbers, so only near."""
        values = {**spec.settings, EPOCHS: float(spec.epochs)}
        return {name: range_.unit(values[name]) for name, range_ in self.ranges.items() if name in values}


def moved(point: Point, moves: Mapping[str, float]) -> Point:
    """The point shifted by these amounts and kept inside the cube."""
    return {**point, **{name: _clip(point.get(name, _MIDDLE) + move) for name, move in moves.items()}}


def shorter(point: Point, ratio: float) -> Point:
    """The point with ``ratio`` of its epochs, as far as the cube allows."""
    epochs = point.get(EPOCHS, _MIDDLE) + math.log(ratio) / (2 * math.log(EPOCHS_FACTOR))
    return {**point, EPOCHS: max(0.0, epochs)}


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


@dataclass(frozen=True, kw_only=True, slots=True)
class PastTrial:
    """A complete trial of an earlier search."""

    task: str  # digest
    candidate: str
    family: str
    method: str
    point: Point
    value: float  # validation metric, in [0, 1]


Defaults = Mapping[tuple[str, str], Point]  # of candidate and method


def learn_defaults(
    past: Sequence[PastTrial],
    *,
    candidates: Sequence[Candidate],
    methods: Mapping[str, Sequence[str]],
    without: str = "",
    policy: Policy = POLICY,
) -> Defaults:
    """Where the first trial of each candidate and method should be.

    Args:
        past: trials of earlier searches, in any order.
        candidates: who will be tuned.
        methods: names of the settings of each method.
        without: digest of a task whose trials are left out: the target's own.
        policy: how strongly votes are shrunk.
    """
    found: dict[tuple[str, str], Point] = {}
    for method, settings in methods.items():
        mine = [each for each in past if each.method == method and each.task != without]
        votes = _votes(mine, settings, policy)
        everyone = _shrunk([vote for _, vote in votes], towards=np.full(len(settings), _MIDDLE), policy=policy)
        by_family = {
            family: _shrunk([vote for of, vote in votes if of == family], towards=everyone, policy=policy)
            for family in {each.family for each in candidates}
        }
        for each in candidates:
            values = by_family[each.family].tolist()
            found[each.id, method] = {name: _clip(value) for name, value in zip(settings, values, strict=True)}
    return found


def _votes(past: Sequence[PastTrial], settings: Sequence[str], policy: Policy) -> list[tuple[str, FloatArray]]:
    """(family, mean point) of each task and candidate that was tried more than once."""
    groups: dict[tuple[str, str], list[PastTrial]] = {}
    for each in past:
        groups.setdefault((each.task, each.candidate), []).append(each)
    votes = []
    for _, group in sorted(groups.items()):
        if len(group) > 1:
            values = np.array([each.value for each in group])
            weights = np.exp((values - values.max()) / policy.near_best)
            points = np.array([[each.point.get(name, _MIDDLE) for name in settings] for each in group])
            votes.append((group[0].family, weights @ points / weights.sum()))
    return votes


def _shrunk(votes: Sequence[FloatArray], *, towards: FloatArray, policy: Policy) -> FloatArray:
    total: FloatArray = (policy.shrink_votes * towards + sum(votes, np.zeros(len(towards)))) / (
        policy.shrink_votes + len(votes)
    )
    return total
