"""What every trial of a search is made with: the task, the candidates, where models come from and files go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from vlmsel_auto.cache import Store
from vlmsel_auto.errors import CandidateError, TrialFailed, TrialUnavailable
from vlmsel_auto.events import Sink, discard
from vlmsel_auto.planning.method import Method, SplitSizes
from vlmsel_auto.planning.space import DEFAULT, Point, Space
from vlmsel_auto.process import is_disk_error
from vlmsel_auto.records import Candidate, Task, TrialOrigin, TrialResult, TrialSpec, TrialState
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.run import run_trial
from vlmsel_auto.tuning.work import EpochHook, Loader


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A result, and whether it showed that the candidate cannot be used at all."""

    result: TrialResult
    unavailable: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialRunner:
    """The same for all trials of a search."""

    task: Task
    table: Mapping[str, Candidate]  # by id, sorted
    methods: Mapping[str, Method]  # by name
    load: Loader
    store: Store
    workdir: Path
    device: torch.device
    train_shots: int | None
    images_per_trial: int | None
    seed: int

    @cached_property
    def sizes(self) -> SplitSizes:
        """Images of a trial."""
        parts = splits(self.task, train_shots=self.train_shots)
        return SplitSizes(train=len(parts.train), val=len(parts.val), test=len(parts.test))

    def relative_costs(self) -> dict[str, float]:
        """Cost of a default trial by each method, in passes over the images."""
        name = next(iter(self.table))
        return {
            method.name: method.relative_cost(self.sizes, epochs=self.spec(method.name, name, DEFAULT).epochs)
            for method in self.methods.values()
        }

    def space(self, method: str, name: str) -> Space:
        """What may vary for one candidate."""
        return self.methods[method].space(
            self.table[name], train_images=self.sizes.train, images_per_trial=self.images_per_trial
        )

    @property
    def folds(self) -> int:
        """Folds that trials of towers are scored on in turn; 1: the validation split alone."""
        return max(1, len(self.task.folds)) if self.train_shots is None else 1

    def spec(self, method: str, name: str, point: Point, *, fold: int = 0) -> TrialSpec:
        """The trial at a point."""
        return self.space(method, name).spec(point, candidate=name, seed=self.seed, fold=fold)

    def attempt(
        self,
        spec: TrialSpec,
        *,
        number: int,
        origin: TrialOrigin,
        report: EpochHook,
        deadline: float | None,
        continues: int | None = None,
        sink: Sink = discard,
    ) -> Attempt:
        """Run a trial; no failure of it, foreseen or not, ends the run.

        Raises:
            KeyboardInterrupt: asked to end.
            OSError: the work directory cannot be written.
        """
        begun = time.monotonic()
        try:
            result = run_trial(
                spec,
                number=number,
                task=self.task,
                candidate=self.table[spec.candidate],
                load=self.load,
                store=self.store,
                workdir=self.workdir,
                device=self.device,
                origin=origin,
                train_shots=self.train_shots,
                report=report,
                deadline=deadline,
                continues=continues,
                sink=sink,
            )
        except Exception as error:
            if is_disk_error(error):  # no later trial could be kept either
                raise
            known = isinstance(error, (TrialFailed, CandidateError))
            gone = isinstance(error, (TrialUnavailable, CandidateError))
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            seconds = time.monotonic() - begun
            return Attempt(
                result=failed(spec, number=number, origin=origin, seconds=seconds, reason=reason),
                unavailable=reason if gone else "",
            )
        return Attempt(result=result)


def failed(spec: TrialSpec, *, number: int, origin: TrialOrigin, reason: str, seconds: float = 0.0) -> TrialResult:
    """The result of a trial that gave none."""
    return TrialResult(
        number=number,
        spec=spec,
        state=TrialState.FAILED,
        origin=origin,
        validation=None,
        test=None,
        curve=(),
        epochs_run=0,
        seconds=seconds,
        reason=reason,
        fidelity=0.0,
        cost=seconds,
    )
