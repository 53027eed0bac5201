"""What a search may spend, its trials, and why it ended."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vlmsel_auto.errors import BudgetError

_DIGITS: Final = 6  # settings go through a point of the unit cube and back, which may change the last ones


class TrialState(enum.StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"  # ended early: others were better, or there was no time; it may go on
    FAILED = "failed"


class TrialOrigin(enum.StrEnum):
    """Why a trial was run."""

    ZERO_SHOT = "floor"  # trial 0 of a search: nothing is trained; files have this word
    PLANNED = "planned"  # first trial of a candidate by a method
    SAMPLED = "sampled"

    @property
    def label(self) -> str:
        """As people read it."""
        return "zero-shot" if self is TrialOrigin.ZERO_SHOT else self.value


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a search may spend. None: no limit of that kind.

    Raises:
        BudgetError: a limit that is not finite and above zero.
    """

    seconds: float | None = None
    trials: int | None = None

    def __post_init__(self) -> None:
        """Refuse what allows nothing."""
        for name, value in (("seconds", self.seconds), ("trials", self.trials)):
            try:
                allowed = value is None or 0 < value < math.inf
            except TypeError:  # a text, as the command line takes it
                allowed = False
            if not allowed:
                raise BudgetError(f"a budget of {name} must be positive, or None for no limit, but got {value!r}")


class StoppedBy(enum.StrEnum):
    """Why a search ended."""

    EXHAUSTED = "exhausted"  # no further trial promised enough for its time
    BUDGET = "budget"
    INTERRUPTED = "interrupted"
    ALL_FAILED = "all trials failed"
    NO_LABELS = "no labels"


def settings_key(settings: Mapping[str, float]) -> frozenset[tuple[str, float]]:
    """What the same settings have in common, be they numbers or places in the unit cube."""
    return frozenset((name, float(f"{value:.{_DIGITS}g}")) for name, value in settings.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    """Everything that determines one trial."""

    candidate: str
    method: str  # a row of `tuning.methods`
    settings: Mapping[str, float]  # the method's own: "learning_rate", "weight_decay", ...
    epochs: int
    seed: int
    fold: int = 0  # one of `Task.folds`, that a tower is scored on, and never sees

    def differs_by_fold_alone(self, other: TrialSpec) -> bool:
        """Whether the same settings are scored on another fold."""
        return self.fold != other.fold and self._without_fold() == other._without_fold()

    def _without_fold(self) -> tuple[object, ...]:
        return self.candidate, self.method, self.epochs, self.seed, settings_key(self.settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """What became of one trial."""

    number: int
    spec: TrialSpec
    state: TrialState
    origin: TrialOrigin
    validation: float | None  # the task's metric on the validation split, of the kept epoch
    test: float | None  # on the test split: reported, never used to choose
    curve: tuple[float, ...]  # validation metric after each epoch
    epochs_run: int
    seconds: float  # wall time of the whole trial
    reason: str = ""  # why it failed or was pruned
    out_of_time: bool = False  # the time budget ended it; pruned, if before half of its epochs
    start: float | None = None  # validation metric before training: the zero-shot classifier
    kept_epoch: int | None = None  # epoch whose weights were kept; 0: training did not improve on the start
    continues: int | None = None  # the interrupted trial whose state it began from; its epochs are part of the curve
    fidelity: float | None = None  # share of the planned epochs that was trained; None: not recorded
    cost: float | None = None  # seconds of this trial and of those that it continues; None: not recorded
    soft_validation: float | None = None  # validation with each image counted by the probability of its true class
    validation_images: int | None = None  # that these were measured on; None: not recorded
    fold_validation: tuple[float, ...] = ()  # of a cross-validated head, its validation on each of `Task.folds`
    fold_soft: tuple[float, ...] = ()  # likewise soft_validation
