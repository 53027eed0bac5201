"""Fine-tuning of the whole visual tower and its head by Lightning's trainer, from the start or from where it paused."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch

from vlmsel_auto.errors import TrialOutOfMemory
from vlmsel_auto.models.precision import TRIED, tunes_in_bfloat16
from vlmsel_auto.models.threads import measured_threads
from vlmsel_auto.process import is_out_of_memory, release_memory
from vlmsel_auto.records import Metric
from vlmsel_auto.tuning import probe, zero_shot
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import Batches, ImageSet, Measured, image_set, measure, score
from vlmsel_auto.tuning.features import features_of
from vlmsel_auto.tuning.module import EpochReport, Head, Kept, Tuner, copy_state
from vlmsel_auto.tuning.paused import Paused, Progress
from vlmsel_auto.tuning.trainer import Timed, make_trainer, quiet_lightning
from vlmsel_auto.tuning.work import Deadline, Ending, Outcome, Work

_MARGIN = 0.1  # seconds kept for writing the result before a deadline
_HALVINGS = 2  # batch, batch / 2, batch / 4; then the trial fails
_USUAL_BATCH = 32
_FEW_STEPS, _MANY_STEPS = 6, 64  # an epoch, at least, with usual and with larger batches


def run(work: Work) -> Outcome:
    """Fit a head on cached features, then train tower and head; smaller batches where memory does not suffice.

    A head that does not fit yet would distort the features (Kumar et al., ICLR 2022).

    Raises:
        TrialOutOfMemory: not even a quarter of the batch fits.
        TrialDiverged: the loss became NaN or infinite.
        DeadlineReached: there was no time for anything.
    """
    try:
        return _halving(work, fitted_head(work))
    finally:
        release_memory(work.device)


def fitted_head(work: Work) -> Outcome:
    """Logistic regression on the training images, with what zero-shot reaches on the validation images."""
    splits, labels, metric = work.splits, work.task.labels, work.task.metric
    only_given = replace(work, splits=replace(splits, folds=()))  # a tower is scored on images that it never saw
    start = zero_shot.run(only_given)
    if not work.spec.epochs:
        return start
    found = features_of(work)
    train = splits.train
    head = probe.fit(found.of(train).numpy(), labels[train], classes=work.task.n_classes, metric=metric)
    return replace(start, checkpoint=head)


def _halving(work: Work, head: Outcome) -> Outcome:
    full = batch_size(len(work.splits.train), work.device)
    first = 0 if work.paused is None else (full // work.paused.progress.batch).bit_length() - 1
    for halving in range(first, _HALVINGS + 1):
        try:
            return train(work, head, batch=max(1, full >> halving), accumulate=2**halving)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        work = replace(work, paused=None)  # other batches make other steps: begin anew
        release_memory(work.device)
    raise TrialOutOfMemory(
        f"Fine-tuning {work.spec.candidate} does not fit into the memory of {work.device}: free memory or leave it "
        f"out, but got batches of {full}, halved {_HALVINGS} times"
    )


@torch.inference_mode()
def _predict(tuner: Tuner, images: ImageSet, *, batch: int, deadline: Deadline) -> torch.Tensor:
    """Logits (n, K) of all images, float32, on the CPU."""
    tuner.eval()
    outputs = []
    for pixels, _ in Batches(images=images, size=batch):
        deadline.check()
        outputs.append(tuner(pixels).float().cpu())
    return torch.cat(outputs)


def batch_size(images: int, device: torch.device) -> int:
    """Batches small enough for many steps, large enough to keep the device busy: a power of two, at least 8.

    Six an epoch or more; more than 32 images only where 64 of these batches make an epoch.
    """
    largest = 128 if device.type == "cuda" else 64
    usual = min(_USUAL_BATCH, _power_of_two(images // _FEW_STEPS))
    return min(largest, max(usual, _power_of_two(images // _MANY_STEPS)))


def _power_of_two(number: int) -> int:
    """The largest that is no larger, and 8 below that."""
    return 1 << max(3, number.bit_length() - 1)


def _snapshot(tuner: Tuner, *, kept: Kept, start: float, shuffle: torch.Generator, batch: int) -> Paused:
    """The state of the training between two epochs."""
    return Paused(
        progress=Progress(
            curve=tuple(kept.curve),
            metric=kept.measured.metric,
            soft=kept.measured.soft,
            loss=kept.measured.loss,
            start=start,
            steps=tuner.steps_done,
            batch=batch,
            seconds=0.0,
        ),
        module=tuner.state_dict(),
        moments=tuner.moments,
        generators={**tuner.generators, "shuffle": shuffle.get_state()},
    )


def _begin(tuner: Tuner, val: ImageSet, *, metric: Metric, batch: int, deadline: Deadline) -> tuple[Kept, float, float]:
    """Measure the start: what there is so far, its metric, and seconds an image."""
    begun = time.monotonic()
    logits = _predict(tuner, val, batch=2 * batch, deadline=deadline)
    per_image = (time.monotonic() - begun) / len(val)
    found = measure(metric, logits=logits, labels=val.labels)
    return Kept(measured=found, state=copy_state(tuner), of_val=logits), found.metric, per_image


def _resume(
    tuner: Tuner, paused: Paused, val: ImageSet, *, shuffle: torch.Generator, batch: int
) -> tuple[Kept, float, float]:
    """Put the training where it paused: what there is so far, the metric of the start, and seconds an image."""
    progress = paused.progress
    measured = Measured(metric=progress.metric, soft=progress.soft, loss=progress.loss, images=len(val))
    begun = time.monotonic()
    with torch.inference_mode():
        pixels, _ = val.batch(torch.arange(min(len(val), 2 * batch)))
        tuner.eval()(pixels)
    per_image = (time.monotonic() - begun) / len(pixels)
    tuner.resume(paused)
    shuffle.set_state(paused.generators["shuffle"])
    kept = Kept(measured=measured, state=copy_state(tuner), curve=list(progress.curve))
    return kept, progress.start, per_image


def train(work: Work, head: Outcome, *, batch: int, accumulate: int = 1) -> Outcome:
    """Train a freshly loaded model and return what the last epoch left.

    Args:
        work: the trial; ``paused`` needs the same ``batch``. Training stops early enough to measure both other splits.
        head: what the head begins with.
        batch: images that a step sees at once.
        accumulate: steps whose gradients are summed before the weights move.
    """
    spec, task, splits, view = work.spec, work.task, work.splits, work.candidate.view
    assert head.checkpoint is not None  # noqa: S101 - both ways to begin have one
    begin = head.checkpoint
    model = work.load(work.candidate)
    images = image_set(task, view=view, indices=splits.train, check=work.deadline.check)
    val = image_set(task, view=view, indices=splits.val, check=work.deadline.check)
    layer = Head(
        torch.from_numpy(begin.weight).to(model.device),
        torch.from_numpy(begin.bias).to(model.device),
        scale=begin.scale,
    )
    steps = spec.epochs * math.ceil(math.ceil(len(images) / batch) / accumulate)
    tuner = Tuner(model=model, head=layer, spec=spec, metric=task.metric, steps=steps)
    shuffle = torch.Generator().manual_seed(spec.seed)
    with torch.random.fork_rng(), quiet_lightning():
        torch.manual_seed(spec.seed)  # dropout and the like
        kept, start, per_image = (
            _begin(tuner, val, metric=task.metric, batch=batch, deadline=work.deadline)
            if work.paused is None
            else _resume(tuner, work.paused, val, shuffle=shuffle, batch=batch)
        )
        epochs = spec.epochs - len(kept.curve)
        if epochs > 0:

            def save() -> None:
                if work.keep is not None:
                    work.keep(_snapshot(tuner, kept=kept, start=start, shuffle=shuffle, batch=batch))

            reserve = per_image * (len(val) + len(splits.test)) + _MARGIN
            callback = EpochReport(kept=kept, hook=work.hook, deadline=work.deadline, reserve=reserve, save=save)
            few, _ = images.batch(torch.arange(min(TRIED, len(images))))
            bfloat16 = tunes_in_bfloat16(model, model.normalise(few))
            tuner.train()
            with measured_threads(model.device) as threads:
                trainer = make_trainer(
                    epochs=epochs, callbacks=[callback, Timed(threads)], device=model.device,
                    accumulate=accumulate, bfloat16=bfloat16, folder=work.workdir,
                )  # fmt: skip
                trainer.fit(
                    tuner,
                    train_dataloaders=Batches(images=images, size=batch, generator=shuffle),
                    val_dataloaders=Batches(images=val, size=2 * batch),
                )
            tuner.to(model.device)  # Lightning moves the module to the CPU when it is done
            tuner.load_state_dict(kept.state)
    test: float | None = None
    of_val, of_test = kept.of_val, None
    if kept.ending is not Ending.PRUNED:
        if of_val is None:
            of_val = _predict(tuner, val, batch=2 * batch, deadline=Deadline())
        if len(splits.test):
            shown = image_set(task, view=view, indices=splits.test)
            of_test = _predict(tuner, shown, batch=2 * batch, deadline=Deadline()).numpy()
            test = score(task.metric, labels=task.labels[splits.test], predicted=of_test.argmax(axis=1))
    visual = {name: each.cpu() for name, each in copy_state(tuner.visual).items()}
    return Outcome(
        checkpoint=Checkpoint(
            visual=visual if kept.curve else None,
            weight=layer.weight.detach().cpu().numpy(),
            bias=layer.bias.detach().cpu().numpy(),
            scale=layer.scale,
            held_out_logits=None if of_val is None else of_val.float().cpu().numpy(),
            test_logits=of_test,
        ),
        start=head.start,
        validation=kept.measured,
        test=test,
        kept=len(kept.curve),
        curve=tuple(kept.curve),
        ending=kept.ending,
        trained=spec.epochs * tuner.steps_done / steps if kept.ending is Ending.DEADLINE else None,
    )
