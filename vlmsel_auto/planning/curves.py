"""Learning curves: which trial goes on at a rung, and where a paused one would end.

Asynchronous successive halving (Li et al., MLSys 2020) over quarters of a trial, so that trials of any length meet at
the same rungs. A trial that does not go on is paused, not lost: its curve says where it would have ended, and when that
promises more than anything else it is continued.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.records import FloatArray

RUNGS = 4
_HALVING = 2  # of the trials at a rung one in so many goes on
_GUESS = 2.0  # curves that the gain counts for that is expected before any curve of this task is known
_LEAST_SD = 0.003  # of a forecast


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Validation metric after each epoch so far, of a trial that was planned for ``epochs``."""

    values: tuple[float, ...]
    epochs: int

    @property
    def whole(self) -> bool:
        """Whether it has reached its end."""
        return len(self.values) >= self.epochs


@dataclass(frozen=True, eq=False)
class WholeCurves:
    """Those curves of a task that reached their end. What they gained is asked for again and again at a few shares."""

    curves: Sequence[Curve]
    _gains: dict[float, FloatArray] = field(default_factory=dict)

    def gains(self, share: float) -> FloatArray:
        """What each gained after that share of its epochs."""
        if share not in self._gains:
            found = [
                each.values[-1] - each.values[max(1, math.floor(share * each.epochs)) - 1]
                for each in self.curves
                if each.whole
            ]
            self._gains[share] = np.array(found, dtype=np.float64)
        return self._gains[share]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Where a trial will end."""

    mean: float
    sd: float


def rung_of(epoch: int, *, epochs: int) -> int:
    """The rung that is reached after ``epoch`` epochs: 0 (none) to `RUNGS` (the end)."""
    return epoch * RUNGS // epochs


def value_at(curve: Curve, *, rung: int) -> float | None:
    """Metric at the rung, or None for a curve that did not reach it."""
    needed = -(-rung * curve.epochs // RUNGS)
    return curve.values[needed - 1] if 0 < needed <= len(curve.values) else None


def goes_on(value: float, others: Sequence[float]) -> bool:
    """Whether a trial with ``value`` at a rung is in the better half of itself and ``others``."""
    places = max(1, (len(others) + 1) // _HALVING)
    return sum(other > value for other in others) < places


def forecast(curve: Curve, *, others: WholeCurves, policy: Policy = POLICY) -> Forecast:
    """Extrapolate by what whole curves of the same task still gained after the same share of their epochs.

    Before any is known, the gain is `Policy.growth` times the share that is missing.

    Raises:
        ValueError: a curve without an epoch.
    """
    if not curve.values:
        raise ValueError(f"a curve needs an epoch to be extrapolated, but got {curve!r}")
    share = min(1.0, len(curve.values) / curve.epochs)
    gains = others.gains(share)
    guess, weight = policy.growth * (1 - share), _GUESS
    mean = (weight * guess + float(gains.sum())) / (weight + len(gains))
    spread = weight * (guess**2 + (guess - mean) ** 2) + float(((gains - mean) ** 2).sum())
    sd = math.sqrt(spread / (weight + len(gains)))
    return Forecast(mean=min(1.0, curve.values[-1] + mean), sd=max(_LEAST_SD, sd))
