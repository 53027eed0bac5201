"""What every method is given, and what it gives back: the contract of a row of `methods`."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch.nn import functional

from vlmsel_auto.cache import Store
from vlmsel_auto.events import Sink, discard
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate, IntArray, Task, TrialSpec
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
class Features:
    """Unit-norm embeddings of images with what the zero-shot classifier of the same model is."""

    values: torch.Tensor  # (n, D) float32
    at: IntArray  # (n,) sorted: which images of the task
    text: torch.Tensor  # (K, D) float32; (0, D): the candidate has no text tower
    scale: float

    def of(self, indices: IntArray) -> torch.Tensor:
        """Features (m, D) of some of the images."""
        return self.values[torch.from_numpy(np.searchsorted(self.at, indices))]


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
    sink: Sink = discard

    def features(self) -> Features:
        """Cached features of all images of the trial; the candidate's first trial pays for one pass over them.

        Raises:
            TrialUnavailable: the candidate cannot be loaded.
            DeadlineReached: the time ran out before they were complete.
        """
        everything = np.sort(np.concatenate([self.splits.train, self.splits.val, self.splits.test]))
        found = embed(
            self.candidate,
            self.task,
            everything,
            load=lambda: self.load(self.candidate),
            store=self.store,
            check=self.deadline.check,
        )
        return Features(
            values=functional.normalize(torch.tensor(found.images), dim=-1),
            at=everything,
            text=torch.tensor(found.text),
            scale=min(found.logit_scale, MAX_SCALE),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodOutcome:
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


NOTHING: Final = MethodOutcome(
    checkpoint=None, start=None, validation=None, test=None, kept=None, curve=(), ending=Ending.DEADLINE
)
