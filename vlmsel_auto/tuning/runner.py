"""Trials: what those of a search have in common, and one of them from its loading to its result and its files."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import torch

from vlmsel_auto.cache import Store
from vlmsel_auto.errors import CandidateError, TrialFailed, TrialUnavailable
from vlmsel_auto.events import Notice, Sink, TrialEpoch, discard
from vlmsel_auto.planning.method import Method, SplitSizes
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.planning.space import DEFAULT, Point, Space
from vlmsel_auto.process import is_disk_error
from vlmsel_auto.records import Candidate, Task, TrialOrigin, TrialResult, TrialSpec, TrialState
from vlmsel_auto.tuning.checkpoints import save_weights
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.methods import USUAL, method_of, methods_of
from vlmsel_auto.tuning.paused import Paused, drop_paused, load_paused, save_paused
from vlmsel_auto.tuning.work import (
    NOTHING,
    Deadline,
    DeadlineReached,
    Ending,
    EpochHook,
    Loader,
    MethodOutcome,
    Work,
    never,
)

_ROUNDED: Final = 1e-6  # of an epoch
_CPU: Final = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One trial to be run."""

    number: int  # names its folder
    spec: TrialSpec  # zero epochs measure the zero-shot classifier
    origin: TrialOrigin = TrialOrigin.PLANNED
    deadline: float | None = None  # `time.monotonic` at which it must be over; it then ends with what it has
    continues: int | None = None  # an interrupted trial with the same ``spec``: its epochs are not repeated

    def failed(self, reason: str, *, seconds: float = 0.0) -> TrialResult:
        """Its result when it gave none."""
        return TrialResult(
            number=self.number,
            spec=self.spec,
            state=TrialState.FAILED,
            origin=self.origin,
            validation=None,
            test=None,
            curve=(),
            epochs_run=0,
            seconds=seconds,
            reason=reason,
            fidelity=0.0,
            cost=seconds,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A result, and whether it showed that the candidate cannot be used at all."""

    result: TrialResult
    unavailable: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialRunner:
    """What all trials of a search are made with: the task, the candidates, where models come from and files go.

    Raises:
        CandidateError: no candidate, or one twice.
        InputError: an unknown method, or none.
    """

    task: Task
    candidates: Sequence[Candidate]
    load: Loader  # onto ``device``, anew for every trial; picklable for workers
    store: Store  # of embeddings
    workdir: Path  # trials are in ``trials/NNNN/``
    method_names: Sequence[str] | None = None  # rows of `tuning.methods`; None: the usual ones
    device: torch.device = _CPU
    train_shots: int | None = None  # at most so many training images a class; None takes the whole training split
    images_per_trial: int | None = None  # that a default trial of a tower sees, repeats counted; None: by their number
    seed: int = 0

    def __post_init__(self) -> None:
        ids = [each.id for each in self.candidates]
        if not ids or len(set(ids)) != len(ids):
            raise CandidateError(f"Candidates must be distinct, at least one, but got {ids!r}")
        if self.method_names is not None:
            methods_of(self.method_names)

    @cached_property
    def table(self) -> Mapping[str, Candidate]:
        """The candidates by id, sorted."""
        return {each.id: each for each in sorted(self.candidates, key=lambda each: each.id)}

    @cached_property
    def methods(self) -> Mapping[str, Method]:
        """By name."""
        rows = USUAL if self.method_names is None else methods_of(self.method_names)
        return {each.name: each for each in rows}

    @cached_property
    def sizes(self) -> SplitSizes:
        """Images of a trial."""
        found = splits(self.task, train_shots=self.train_shots)
        return SplitSizes(train=len(found.train), val=len(found.val), test=len(found.test))

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

    def trial(self, number: int, planned: NextTrial, *, deadline: float | None = None) -> Trial:
        """The one that was planned."""
        point = DEFAULT if planned.point is None else planned.point
        return Trial(
            number=number,
            spec=self.spec(planned.method, planned.candidate, point, fold=planned.fold),
            origin=planned.origin,
            deadline=deadline,
            continues=planned.continues,
        )

    def attempt(self, trial: Trial, *, report: EpochHook = never, sink: Sink = discard) -> Attempt:
        """Run a trial; no failure of it, foreseen or not, ends the search.

        Raises:
            KeyboardInterrupt: asked to end.
            OSError: the work directory cannot be written.
        """
        begun = time.monotonic()
        try:
            return Attempt(result=self.run(trial, report=report, sink=sink))
        except Exception as error:
            if is_disk_error(error):  # no later trial could be kept either
                raise
            known = isinstance(error, (TrialFailed, CandidateError))
            gone = isinstance(error, (TrialUnavailable, CandidateError))
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            result = trial.failed(reason, seconds=time.monotonic() - begun)
            return Attempt(result=result, unavailable=reason if gone else "")

    def run(self, trial: Trial, *, report: EpochHook = never, sink: Sink = discard) -> TrialResult:
        """Run a trial and write its weights to ``trials/NNNN/weights.safetensors``.

        The weights of trials that the report pruned, and of trials that had no time for a single measurement, are not
        written; those that time ended are. A trial of a tower that time ended early, or that was killed, leaves the
        state of its training about once a minute, from which another trial goes on (``continues``).

        After every epoch, which heads on cached features have none of, ``report`` is told (epoch, validation, loss),
        and ``sink`` takes a `TrialEpoch`.

        Returns:
            State complete, or pruned when the report asked for it or time ended before half of the epochs. An epoch
            that time cut short has its value in the curve and counts as one there, in ``fidelity`` as what it was.

        Raises:
            TrialFailed: out of memory, diverged, weights missing. The search can go on.
            InputError: no such method.
            KeyboardInterrupt: asked to end.
        """
        begun = time.monotonic()
        spec = trial.spec
        method: Callable[[Work], MethodOutcome] = importlib.import_module(method_of(spec.method).module).run
        paused = None if trial.continues is None else self._paused(trial.continues, sink=sink)
        before = 0.0 if paused is None else paused.progress.seconds

        def keep(state: Paused) -> None:
            seconds = before + time.monotonic() - begun
            save_paused(self.workdir, trial.number, replace(state, progress=replace(state.progress, seconds=seconds)))

        def hook(epoch: int, validation: float, loss: float) -> bool:
            sink(TrialEpoch(number=trial.number, epoch=epoch, epochs=spec.epochs, validation=validation, loss=loss))
            return report(epoch, validation, loss)

        work = Work(
            spec=spec,
            task=self.task,
            candidate=self.table[spec.candidate],
            splits=splits(self.task, fold=spec.fold, train_shots=self.train_shots),
            load=self.load,
            store=self.store,
            hook=hook,
            deadline=Deadline(trial.deadline),
            workdir=self.workdir,
            device=self.device,
            paused=paused,
            keep=keep,
            sink=sink,
        )
        try:
            outcome = method(work)
        except DeadlineReached:
            outcome = NOTHING
        if outcome.checkpoint is not None and outcome.ending is not Ending.PRUNED:
            save_weights(self.workdir, trial.number, outcome.checkpoint)
        result = _result(
            replace(trial, continues=None if paused is None else trial.continues),
            outcome,
            seconds=time.monotonic() - begun,
            before=before,
        )
        if not (result.out_of_time and result.state is TrialState.PRUNED):
            drop_paused(self.workdir, trial.number)
        return result

    def _paused(self, number: int, *, sink: Sink) -> Paused | None:
        """The state of a paused trial, or None when it is damaged: the trial is then begun anew."""
        try:
            return load_paused(self.workdir, number)
        except TrialUnavailable as error:
            sink(Notice(text=str(error), level="warning"))
            return None


def _result(trial: Trial, outcome: MethodOutcome, *, seconds: float, before: float) -> TrialResult:
    """What came of a trial that took so many seconds, after ``before`` of the one that it continues."""
    epochs, late, measured = trial.spec.epochs, outcome.ending is Ending.DEADLINE, outcome.validation
    cut = outcome.ending is Ending.PRUNED or (late and 2 * len(outcome.curve) < max(1, epochs))
    trained = len(outcome.curve) if outcome.trained is None else min(outcome.trained, len(outcome.curve))
    return TrialResult(
        number=trial.number,
        spec=trial.spec,
        state=TrialState.PRUNED if cut else TrialState.COMPLETE,
        origin=trial.origin,
        validation=None if measured is None else measured.metric,
        soft_validation=None if measured is None else measured.soft,
        validation_images=None if measured is None else measured.images,
        fold_validation=tuple(each.metric for each in outcome.folds),
        fold_soft=tuple(each.soft for each in outcome.folds),
        test=outcome.test,
        curve=outcome.curve,
        epochs_run=len(outcome.curve),
        seconds=seconds,
        reason=_reason(outcome, trained=trained, epochs=epochs),
        out_of_time=late,
        start=outcome.start,
        kept_epoch=outcome.kept,
        continues=trial.continues,
        fidelity=trained / epochs if epochs else 1.0,
        cost=before + seconds,
    )


def _reason(outcome: MethodOutcome, *, trained: float, epochs: int) -> str:
    done = f"after {len(outcome.curve)} of {epochs} epochs" if epochs else "before it had learned"
    match outcome.ending:
        case Ending.COMPLETE:
            return ""
        case Ending.PRUNED:
            return f"pruned {done}: others were better at this point"
        case Ending.DEADLINE if trained < len(outcome.curve) - _ROUNDED:
            return f"the time budget ended in epoch {len(outcome.curve)} of {epochs}"
        case Ending.DEADLINE:
            return f"the time budget ended {done}"
