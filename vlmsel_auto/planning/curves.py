"""Learning curves: which trial goes on at a rung, and where one that did not would have ended.

Asynchronous successive halving (Li et al., MLSys 2020) over quarters of a trial, so that trials of any length meet at
the same rungs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmsel_auto.planning.policy import POLICY, Policy

RUNGS = 4
_HALVING = 2  # of the trials at a rung one in so many goes on
_LEAST_SD = 0.003  # of a forecast


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Validation metric after each epoch so far, of a trial that was planned for ``epochs``."""

    values: tuple[float, ...]
    epochs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What is believed of a trial's metric."""

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


def forecast(curve: Curve, *, policy: Policy = POLICY) -> Estimate:
    """Extrapolate a curve of at least one epoch: `Policy.growth` times the missing share of the epochs, +- as much."""
    growth = policy.growth * (1 - min(1.0, len(curve.values) / curve.epochs))
    return Estimate(mean=min(1.0, curve.values[-1] + growth), sd=max(_LEAST_SD, growth))
