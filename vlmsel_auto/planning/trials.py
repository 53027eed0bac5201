"""Trials of a search as the planner sees them, and what is left of the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.space import Point
from vlmsel_auto.records import TrialOrigin, TrialState


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldScore:
    """One trial on one fold."""

    metric: float
    soft: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """What the plan needs to know of one trial, in the order in which they were begun."""

    candidate: str
    method: str
    origin: TrialOrigin
    state: TrialState
    validation: float | None
    seconds: float
    point: Point
    number: int  # no other complete trial has it
    soft: float | None = None  # validation with each image counted by the probability of its true class
    images: int | None = None  # that these were measured on; None: as many as the plan says
    curve: Curve | None = None  # of training a tower
    share: float = 1.0  # of the planned epochs that this trial itself ran
    fold: int | None = None  # that it is scored on; None: all, or those of every trial
    folds: tuple[FoldScore, ...] = ()  # what a cross-validated trial reached on each fold


History = Sequence[Tried]
Arm = tuple[str, str]  # candidate and method


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What is left of the budget; None: unlimited."""

    trials: int | None = None
    seconds: float | None = None  # of wall time
    workers: int = 1  # that spend them at once

    @property
    def work(self) -> float | None:
        """Seconds of all workers together."""
        return None if self.seconds is None else self.seconds * self.workers

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return (self.trials is not None and self.trials <= 0) or (self.seconds is not None and self.seconds <= 0)
