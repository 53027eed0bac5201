"""What every method is given, and what it gives back: the contract of a row of `methods`."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from vlmsel_auto.cache import Store
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate, Task, TrialSpec
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import Measured, Splits
from vlmsel_auto.tuning.paused import Paused

MAX_SCALE: Final = 100.0  # open_clip clamps the logit scale to 100 while it trains

Loader = Callable[[Candidate], LoadedModel]  # loads anew at every call: training changes the weights
EpochHook = Callable[[int, float, float], bool]  # epoch (1-based), validation metric, training loss -> end the trial?


def never(epoch: int, validation: float, loss: float) -> bool:  # noqa: ARG001 - the signature of a hook
    """The hook that ends no trial."""
    return False


class DeadlineReached(Exception):
    """The time budget ended before the trial had anything to show. Never leaves the trial."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point of `time.monotonic` after which work should end; None never comes."""

    at: float | None = None

    def passed(self, *, reserve: float = 0.0) -> bool:
        """Whether less than ``reserve`` seconds are left."""
        return self.at is not None and time.monotonic() + reserve >= self.at

    def check(self, *, reserve: float = 0.0) -> None:
        """Raise `DeadlineReached` when `passed`."""
        if self.passed(reserve=reserve):
            raise DeadlineReached


class Ending(enum.StrEnum):
    """Why training ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"  # the hook asked for it
    DEADLINE = "deadline"


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """One trial to be done."""

    spec: TrialSpec
    task: Task
    candidate: Candidate
    splits: Splits
    load: Loader
    store: Store  # of embeddings
    hook: EpochHook
    deadline: Deadline
    workdir: Path
    device: torch.device
    paused: Paused | None = None  # go on from here
    keep: Callable[[Paused], None] | None = None  # takes the state of a training that may go on another day


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a method found."""

    checkpoint: Checkpoint | None  # None: there was no time for anything
    start: float | None  # validation metric before training
    validation: Measured | None  # of what is exported
    test: float | None  # None: pruned, or no test split
    kept: int | None  # epoch that is exported; 0: nothing was trained
    curve: tuple[float, ...]  # validation metric after each epoch
    ending: Ending
    trained: float | None = None  # epochs, where time cut the last one short; None: one for each value of the curve
    folds: tuple[Measured, ...] = ()  # what a cross-validated head reaches on each fold


NOTHING: Final = Outcome(
    checkpoint=None, start=None, validation=None, test=None, kept=None, curve=(), ending=Ending.DEADLINE
)
