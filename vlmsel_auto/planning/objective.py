"""What a search is after: accuracy, and what half the latency, half the parameters or half the memory are worth of it.

    worth = accuracy - sum over what is weighed: points / 100 * log2(figure / reference)

A constant price for a halving treats 5 against 10 ms like 50 against 100 ms; MnasNet's soft latency target (Tan et al.
2019, eq. 2) is the same form for log accuracy. Only differences of worth decide, so the references (10 ms an image, 100
million parameters, 1 GB of memory) set nothing but its zero.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

from vlmsel_auto.errors import InputError

_REFERENCES: Final = {"latency": 0.01, "params": 1e8, "memory": 1e9}
_MOST: Final = 100.0  # points
_PART: Final = re.compile(r"([a-z]+)\s*=\s*(\d+(?:\.\d*)?|\.\d+)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a model, or several that an image passes through, take; None: not known."""

    latency: float | None = None  # seconds an image
    params: float | None = None
    memory: float | None = None  # bytes, to load it and embed images in float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """Points of the metric (hundredths) that half of each is worth; all 0: the metric alone counts.

    Raises:
        InputError: not 0 to 100 points.
    """

    latency: float = 0.0
    params: float = 0.0
    memory: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not all(0 <= points <= _MOST for points in self._points().values()):
            raise InputError(f"half a cost is worth 0 to {_MOST:g} points, but got {self._points()}")

    def __str__(self) -> str:
        """As the command line takes it."""
        return ",".join(f"{name}={points:g}" for name, points in self._points().items() if points) or "accuracy"

    def __bool__(self) -> bool:
        """Whether anything beside the metric counts."""
        return any(self._points().values())

    def _points(self) -> dict[str, float]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def charge(self, cost: Cost) -> float:
        """What is taken off the metric, in [0, 1]-units of it; negative below the references; 0 for what is unknown."""
        total = 0.0
        for name, points in self._points().items():
            figure = getattr(cost, name)
            if points and figure:
                total += points / 100 * math.log2(figure / _REFERENCES[name])
        return total


ACCURACY: Final = Objective()


def read_objective(text: str) -> Objective:
    """Read ``accuracy``, or points for each half as in ``latency=1,params=.5,memory=.5``.

    Raises:
        InputError: the text is neither, names something else or the same twice, or has points out of range.
    """
    parts = [part.strip() for part in text.lower().split(",")]
    if parts == ["accuracy"]:
        return ACCURACY
    found = [_PART.fullmatch(part) for part in parts]
    named = {each[1]: float(each[2]) for each in found if each is not None}
    if len(named) < len(parts) or not named.keys() <= _REFERENCES.keys():
        raise InputError(
            "an objective is accuracy, or the points of it that half the latency, params or memory is worth, like "
            f"latency=1,params=.5, but got {text!r}"
        )
    return Objective(**named)


def filled(costs: Sequence[Cost]) -> list[Cost]:
    """The costs with the median of the known figures in the place of each unknown one; unknown where none is known."""
    for name in _REFERENCES:
        known = [figure for each in costs if (figure := getattr(each, name))]
        if known:
            middle = statistics.median(known)
            costs = [each if getattr(each, name) else replace(each, **{name: middle}) for each in costs]
    return list(costs)


def summed(costs: Sequence[Cost]) -> Cost:
    """Of models that an image passes through one after the other."""

    def added(figures: Sequence[float | None]) -> float | None:
        known = [each for each in figures if each is not None]
        return sum(known) if len(known) == len(figures) else None

    return Cost(
        latency=added([each.latency for each in costs]),
        params=added([each.params for each in costs]),
        memory=added([each.memory for each in costs]),
    )
