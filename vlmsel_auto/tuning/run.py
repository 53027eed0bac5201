"""One trial from its specification to its result, whatever the method.

Classifier = softmax(scale * normalise(embed(x)) @ W.T + b), W starting at the text weights, or at a head that
was fitted to the training images.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from vlmsel_auto.cache import Store
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.events import Notice, Sink, TrialEpoch, discard
from vlmsel_auto.records import Candidate, Task, TrialOrigin, TrialResult, TrialSpec, TrialState
from vlmsel_auto.tuning.checkpoints import save_weights
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.methods import method_of
from vlmsel_auto.tuning.paused import Paused, drop_paused, load_paused, save_paused
from vlmsel_auto.tuning.work import (
    NOTHING,
    Deadline,
    DeadlineReached,
    Ending,
    EpochHook,
    Loader,
    Outcome,
    Work,
    never,
)

_ROUNDED: Final = 1e-6  # of an epoch


def run_trial(
    spec: TrialSpec,
    *,
    number: int,
    task: Task,
    candidate: Candidate,
    load: Loader,
    store: Store,
    workdir: Path,
    device: str | torch.device = "cpu",
    origin: TrialOrigin = TrialOrigin.PLANNED,
    train_shots: int | None = None,
    report: EpochHook = never,
    deadline: float | None = None,
    continues: int | None = None,
    sink: Sink = discard,
) -> TrialResult:
    """Run one trial and write its weights to ``workdir/trials/NNNN/weights.safetensors``.

    The weights of trials that the report pruned, and of trials that had no time for a single measurement, are not
    written; those that time ended are. A trial of a tower that time ended early, or that was killed, leaves the state
    of its training about once a minute, from which another trial goes on (``continues``).

    Args:
        spec: what to do; ``spec.candidate`` is ``candidate.id``. Zero epochs measure the zero-shot classifier.
        number: of the trial; names its folder.
        task: the task.
        candidate: the candidate.
        load: loads it; called for every attempt, because training changes the weights.
        store: where embeddings are kept.
        workdir: the search's work directory.
        device: where `load` puts the model.
        origin: what chose the trial.
        train_shots: at most so many training images a class; None takes the whole training split.
        report: told (epoch, validation, loss) after every epoch; True prunes the trial.
        deadline: `time.monotonic` at which the trial must be over; it then ends with what it has.
        continues: number of an interrupted trial with the same ``spec`` in ``workdir``: its epochs are not repeated.
        sink: takes a `TrialEpoch` after every epoch; heads on cached features have none.

    Returns:
        State complete, or pruned when the report asked for it or time ended before half of the epochs. An epoch that
        time cut short has its value in the curve and counts as one there, in ``fidelity`` as what it was.

    Raises:
        TrialFailed: out of memory, diverged, weights missing. The run can go on.
        InputError: no such method.
        KeyboardInterrupt: asked to end.
    """
    begun = time.monotonic()
    run = _method(spec)
    paused = None if continues is None else _paused(workdir, continues, sink=sink)
    before = 0.0 if paused is None else paused.progress.seconds

    def keep(state: Paused) -> None:
        seconds = before + time.monotonic() - begun
        save_paused(workdir, number, replace(state, progress=replace(state.progress, seconds=seconds)))

    def hook(epoch: int, validation: float, loss: float) -> bool:
        sink(TrialEpoch(number=number, epoch=epoch, epochs=spec.epochs, validation=validation, loss=loss))
        return report(epoch, validation, loss)

    work = Work(
        spec=spec,
        task=task,
        candidate=candidate,
        splits=splits(task, fold=spec.fold, train_shots=train_shots),
        load=load,
        store=store,
        hook=hook,
        deadline=Deadline(deadline),
        workdir=workdir,
        device=torch.device(device),
        paused=paused,
        keep=keep,
    )
    try:
        outcome = run(work)
    except DeadlineReached:
        outcome = NOTHING
    late = outcome.ending is Ending.DEADLINE
    cut = outcome.ending is Ending.PRUNED or (late and 2 * len(outcome.curve) < max(1, spec.epochs))
    if outcome.checkpoint is not None and outcome.ending is not Ending.PRUNED:
        save_weights(workdir, number, outcome.checkpoint)
    if not (late and cut):
        drop_paused(workdir, number)
    seconds = time.monotonic() - begun
    trained = len(outcome.curve) if outcome.trained is None else min(outcome.trained, len(outcome.curve))
    return TrialResult(
        number=number,
        spec=spec,
        state=TrialState.PRUNED if cut else TrialState.COMPLETE,
        origin=origin,
        validation=None if outcome.validation is None else outcome.validation.metric,
        soft_validation=None if outcome.validation is None else outcome.validation.soft,
        validation_images=None if outcome.validation is None else outcome.validation.images,
        fold_validation=tuple(each.metric for each in outcome.folds),
        fold_soft=tuple(each.soft for each in outcome.folds),
        test=outcome.test,
        curve=outcome.curve,
        epochs_run=len(outcome.curve),
        seconds=seconds,
        reason=_reason(outcome, trained=trained, epochs=spec.epochs),
        out_of_time=late,
        start=outcome.start,
        kept_epoch=outcome.kept,
        continues=None if paused is None else continues,
        fidelity=trained / spec.epochs if spec.epochs else 1.0,
        cost=before + seconds,
    )


def _method(spec: TrialSpec) -> Callable[[Work], Outcome]:
    run: Callable[[Work], Outcome] = importlib.import_module(method_of(spec.method).module).run
    return run


def _paused(workdir: Path, number: int, *, sink: Sink) -> Paused | None:
    """The state of a paused trial, or None when it is damaged: the trial is then begun anew."""
    try:
        return load_paused(workdir, number)
    except TrialUnavailable as error:
        sink(Notice(text=str(error), level="warning"))
        return None


def _reason(outcome: Outcome, *, trained: float, epochs: int) -> str:
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
