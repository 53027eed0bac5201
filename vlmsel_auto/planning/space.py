"""Settings of a trial as a point of the unit cube.

Every range is centred on its default: 0.5 is always "the default of this method for this candidate", so what one
candidate teaches about learning rates carries over to the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vlmsel_auto.records import TrialSpec

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
        """The trial at ``point``, scored on one fold."""
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
