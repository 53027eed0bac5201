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
from vlmsel_auto.planning.cost import tune_cost
from vlmsel_auto.planning.space import Point, Space, space_for
from vlmsel_auto.process import is_disk_error
from vlmsel_auto.records import Candidate, Method, Task, TrialOrigin, TrialResult, TrialSpec
from vlmsel_auto.tuning.data import Splits, splits
from vlmsel_auto.tuning.probe import Loader
from vlmsel_auto.tuning.run import Report, run_trial

__all__ = ["Attempt", "Workbench", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A result, and whether it showed that the candidate cannot be used at all."""

    result: TrialResult
    unavailable: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Workbench:
    """The same for all trials of a search."""

    task: Task
    table: Mapping[str, Candidate]  # by id, sorted
    load: Loader
    store: Store
    workdir: Path
    device: torch.device
    train_shots: int | None
    images_per_trial: int
    seed: int

    @cached_property
    def splits(self) -> Splits:
        """The images of a trial."""
        return splits(self.task, train_shots=self.train_shots)

    @property
    def train_images(self) -> int:
        """How many images a trial learns from."""
        return len(self.splits.train)

    def tune_cost(self) -> float:
        """What a default fine-tuning trial takes against a probe, before either was timed."""
        name = next(iter(self.table))
        return tune_cost(
            train=self.train_images,
            val=len(self.splits.val),
            test=len(self.splits.test),
            epochs=self.spec("finetune", name, Point()).epochs,
        )

    def space(self, method: Method, name: str) -> Space:
        """What may vary for one candidate."""
        return space_for(
            method,
            candidate=self.table[name],
            train_images=self.train_images,
            images_per_trial=self.images_per_trial,
        )

    def spec(self, method: Method, name: str, point: Point) -> TrialSpec:
        """The trial at a point."""
        return self.space(method, name).spec(point, candidate=name, seed=self.seed)

    def attempt(
        self,
        spec: TrialSpec,
        *,
        number: int,
        origin: TrialOrigin,
        report: Report,
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
        state="failed",
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
