"""One trial from its specification to its result: a probe on cached features, or fine-tuning of the whole tower.

Classifier = softmax(scale * normalise(embed(x)) @ W.T + b), W starting at the text weights, so every trial starts from
zero-shot and never ends below it on the validation split: the best epoch is kept, the start included.
"""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from pathlib import Path

import torch

from vlmsel_auto.cache import Store
from vlmsel_auto.errors import TrialOutOfMemory, TrialUnavailable
from vlmsel_auto.events import Notice, Sink, TrialEpoch, discard
from vlmsel_auto.records import Candidate, Task, TrialOrigin, TrialResult, TrialSpec
from vlmsel_auto.tuning.checkpoints import Paused, drop_paused, load_paused, save_paused, save_weights
from vlmsel_auto.tuning.data import Splits, splits
from vlmsel_auto.tuning.finetune import Keep, batch_size, tune
from vlmsel_auto.tuning.probe import (
    NOTHING,
    Deadline,
    DeadlineReached,
    EpochHook,
    Loader,
    Outcome,
    head_start,
    never,
    probe_trial,
)

__all__ = ["LATE", "Report", "run_trial"]

Report = EpochHook  # (epoch, validation metric, training loss) -> should this trial be pruned?

LATE = "the time budget ended"  # how the reason of a trial begins that the clock cut short
_HALVINGS = 2  # batch, batch / 2, batch / 4; then the trial fails


def _is_out_of_memory(error: BaseException) -> bool:
    """CUDA has a class for it; the CPU allocator and cuDNN only say so in words."""
    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def _finetune(
    spec: TrialSpec,
    *,
    task: Task,
    candidate: Candidate,
    load: Loader,
    store: Store,
    parts: Splits,
    hook: EpochHook,
    deadline: Deadline,
    workdir: Path,
    device: torch.device,
    paused: Paused | None,
    keep: Keep,
) -> Outcome:
    start, floor = head_start(
        spec, task=task, candidate=candidate, load=load, store=store, parts=parts, deadline=deadline
    )
    full = batch_size(len(parts.train), device)
    first = 0 if paused is None else (full // paused.progress.batch).bit_length() - 1
    for halving in range(first, _HALVINGS + 1):
        try:
            tuned = tune(
                spec=spec,
                task=task,
                model=load(candidate),  # anew for every attempt: training changes the weights
                candidate=candidate,
                start=start,
                parts=parts,
                hook=hook,
                deadline=deadline,
                workdir=workdir,
                batch=max(1, full >> halving),
                accumulate=2**halving,
                paused=paused,
                keep=keep,
            )
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        else:
            return Outcome(
                checkpoint=tuned.checkpoint,
                start=floor,
                validation=tuned.validation,
                test=tuned.test,
                kept=tuned.kept,
                curve=tuned.curve,
                stopped=tuned.stopped,
            )
        paused = None  # other batches make other steps: begin anew
        _release(device)
    raise TrialOutOfMemory(
        f"Fine-tuning {spec.candidate} does not fit into the memory of {device}: free memory or leave it out, "
        f"but got batches of {full}, halved {_HALVINGS} times"
    )


def _release(device: torch.device) -> None:
    """Give memory back between trials; Lightning's objects hold each other in cycles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


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
    origin: TrialOrigin = "planned",
    train_shots: int | None = None,
    report: Report = never,
    deadline: float | None = None,
    continues: int | None = None,
    sink: Sink = discard,
) -> TrialResult:
    """Run one trial and write its weights to ``workdir/trials/NNNN/weights.safetensors``.

    The weights of pruned trials, and of trials that had no time for a single measurement, are not written. A pruned
    fine-tuning trial leaves the state of its training instead, from which another trial may go on (``continues``); so
    does one that is killed after a minute.

    Args:
        spec: what to do; ``spec.candidate`` is ``candidate.id``. Zero epochs measure the zero-shot classifier.
        number: of the trial; names its folder.
        task: the task.
        candidate: the candidate.
        load: loads it; called for every attempt, because training changes the weights.
        store: where features are kept.
        workdir: the search's work directory.
        device: where `load` puts the model.
        origin: what chose the trial.
        train_shots: at most so many training images a class; None takes the whole training split.
        report: told (epoch, validation, loss) after every epoch; True prunes the trial.
        deadline: `time.monotonic` at which the trial must be over; it then ends with what it has.
        continues: number of a paused trial with the same ``spec`` in the same ``workdir``: its epochs are not repeated.
        sink: takes a `TrialEpoch` after every epoch of fine-tuning, and at the end of a probe.

    Returns:
        State ``"complete"``, or ``"pruned"`` when the report asked for it or time ended before half of the epochs.

    Raises:
        TrialFailed: out of memory, diverged, weights missing. The run can go on.
        KeyboardInterrupt: asked to end.
    """
    begun = time.monotonic()
    parts = splits(task, train_shots=train_shots)
    until = Deadline(deadline)
    paused = None if continues is None else _take_up(workdir, continues, sink=sink)
    before = 0.0 if paused is None else paused.progress.seconds

    def keep(state: Paused) -> None:
        seconds = before + time.monotonic() - begun
        save_paused(workdir, number, replace(state, progress=replace(state.progress, seconds=seconds)))

    def hook(epoch: int, validation: float, loss: float) -> bool:
        if spec.method == "finetune" or epoch == spec.epochs:
            sink(TrialEpoch(number=number, epoch=epoch, epochs=spec.epochs, validation=validation, loss=loss))
        return report(epoch, validation, loss)

    try:
        if spec.method == "probe":
            outcome = probe_trial(
                spec, task=task, candidate=candidate, load=load, store=store, parts=parts, hook=hook, deadline=until
            )
        else:
            outcome = _finetune(
                spec,
                task=task,
                candidate=candidate,
                load=load,
                store=store,
                parts=parts,
                hook=hook,
                deadline=until,
                workdir=workdir,
                device=torch.device(device),
                paused=paused,
                keep=keep,
            )
    except DeadlineReached:
        outcome = NOTHING
    finally:
        if spec.method == "finetune":
            _release(torch.device(device))
    cut = outcome.stopped == "pruned" or (outcome.stopped == "deadline" and 2 * len(outcome.curve) < spec.epochs)
    if outcome.checkpoint is not None and outcome.stopped != "pruned":
        save_weights(workdir, number, outcome.checkpoint)
    if not cut:
        drop_paused(workdir, number)
    seconds = time.monotonic() - begun
    return TrialResult(
        number=number,
        spec=spec,
        state="pruned" if cut else "complete",
        origin=origin,
        validation=None if outcome.validation is None else outcome.validation.metric,
        soft_validation=None if outcome.validation is None else outcome.validation.soft,
        test=outcome.test,
        curve=outcome.curve,
        epochs_run=len(outcome.curve),
        seconds=seconds,
        reason=_reason(outcome, epochs=spec.epochs),
        start=outcome.start,
        kept_epoch=outcome.kept,
        continues=None if paused is None else continues,
        fidelity=len(outcome.curve) / spec.epochs if spec.epochs else 1.0,
        cost=before + seconds,
    )


def _take_up(workdir: Path, number: int, *, sink: Sink) -> Paused | None:
    """The state of a paused trial, or None when it is damaged: the trial is then begun anew."""
    try:
        return load_paused(workdir, number)
    except TrialUnavailable as error:
        sink(Notice(text=str(error), level="warning"))
        return None


def _reason(outcome: Outcome, *, epochs: int) -> str:
    done = f"after {len(outcome.curve)} of {epochs} epochs"
    match outcome.stopped:
        case "":
            return ""
        case "pruned":
            return f"pruned {done}: others were better at this point"
        case "deadline":
            return f"{LATE} {done}"
