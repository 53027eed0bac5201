"""Full fine-tuning of a visual tower and its head by Lightning's trainer, from the start or from where it paused.

Lightning's habits that would reach the user stay in here: no bar, no summary, no logger, no checkpoints of its own;
Ctrl+C is a KeyboardInterrupt again, not a SystemExit; its console lines and warnings are silenced around `fit` only.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from vlmsel_auto.records import Candidate, Metric, Task, TrialSpec
from vlmsel_auto.tuning.checkpoints import Checkpoint, Paused, Progress
from vlmsel_auto.tuning.data import Batches, ImageSet, Measured, Splits, image_set
from vlmsel_auto.tuning.module import EpochReport, Head, Kept, Tuner, copy_state, measure_outputs
from vlmsel_auto.tuning.probe import Deadline, EpochHook, TunableModel

__all__ = ["Keep", "Tuned", "batch_size", "tune"]

_CLIP = 1.0
_MARGIN = 0.1  # seconds kept for writing the result before a deadline

Keep = Callable[[Paused], None]


@torch.inference_mode()
def _predict(
    tuner: Tuner, images: ImageSet, *, batch: int, deadline: Deadline
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Logits and labels of all images, in float32."""
    tuner.eval()
    outputs = []
    for pixels, labels in Batches(images=images, size=batch):
        deadline.check()
        outputs.append((tuner(pixels).cpu(), labels))
    return outputs


@contextmanager
def _manners() -> Iterator[None]:
    """Silence Lightning, and turn its SystemExit back into the KeyboardInterrupt that it was."""
    main = threading.current_thread() is threading.main_thread()
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)} if main else {}
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Lightning's advice to authors of training scripts (loader workers, unused devices, tips)
            warnings.filterwarnings("ignore", module=r"lightning\.")
            warnings.filterwarnings(
                "ignore", message=r".*isinstance\(treespec, LeafSpec\).*"
            )  # pytree use inside Lightning
            yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def batch_size(images: int, device: torch.device) -> int:
    """Batches small enough for some steps an epoch, large enough to keep the device busy."""
    largest = 128 if device.type == "cuda" else 64
    return min(largest, 1 << max(3, (images // 6).bit_length() - 1))


def _trainer(*, epochs: int, callback: EpochReport, device: torch.device, accumulate: int, folder: Path) -> pl.Trainer:
    cuda = device.type == "cuda"
    return pl.Trainer(
        accelerator=device.type,
        devices=[device.index or 0] if cuda else 1,
        precision="bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true",  # masters stay in float32
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=_CLIP,
        callbacks=[callback],
        plugins=[LightningEnvironment()],  # a trial is one process also inside a Slurm job
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """A fine-tuned tower with its head, and how it came about."""

    checkpoint: Checkpoint
    start: float  # validation metric before training
    validation: Measured  # of the kept epoch
    test: float | None  # None: pruned, or no test split
    kept: int  # 0 is the start
    curve: tuple[float, ...]
    stopped: Literal["", "pruned", "deadline"]


def _snapshot(tuner: Tuner, *, kept: Kept, start: float, shuffle: torch.Generator, batch: int) -> Paused:
    """The state of the training between two epochs."""
    return Paused(
        progress=Progress(
            curve=tuple(kept.curve),
            kept=kept.epoch,
            metric=kept.best.metric,
            soft=kept.best.soft,
            loss=kept.best.loss,
            start=start,
            steps=tuner.steps_done,
            batch=batch,
            seconds=0.0,
        ),
        module=tuner.state_dict(),
        best=kept.state if 0 < kept.epoch < len(kept.curve) else {},
        moments=tuner.moments,
        generators={**tuner.generators, "shuffle": shuffle.get_state()},
    )


def _begin(tuner: Tuner, val: ImageSet, *, metric: Metric, batch: int, deadline: Deadline) -> tuple[Kept, float, float]:
    """Measure the start: what is kept so far, its metric, and seconds an image."""
    begun = time.monotonic()
    found = measure_outputs(_predict(tuner, val, batch=2 * batch, deadline=deadline), metric)
    per_image = (time.monotonic() - begun) / len(val)
    return Kept(best=found, state=copy_state(tuner)), found.metric, per_image


def _take_up(
    tuner: Tuner, paused: Paused, val: ImageSet, *, shuffle: torch.Generator, batch: int
) -> tuple[Kept, float, float]:
    """Put the training where it paused: what was kept, the metric of the start, and seconds an image."""
    progress = paused.progress
    best = Measured(metric=progress.metric, soft=progress.soft, loss=progress.loss)
    kept = Kept(best=best, state=copy_state(tuner))  # the start, when that was the best
    begun = time.monotonic()
    with torch.inference_mode():
        pixels, _ = val.batch(torch.arange(min(len(val), 2 * batch)))
        tuner.eval()(pixels)
    per_image = (time.monotonic() - begun) / len(pixels)
    tuner.resume(paused)
    shuffle.set_state(paused.generators["shuffle"])
    kept.epoch, kept.curve = progress.kept, list(progress.curve)
    if progress.kept:
        kept.state = dict(paused.best) or copy_state(tuner)
    return kept, progress.start, per_image


def tune(
    *,
    spec: TrialSpec,
    task: Task,
    model: TunableModel,
    candidate: Candidate,
    start: Checkpoint,
    parts: Splits,
    hook: EpochHook,
    deadline: Deadline,
    workdir: Path,
    batch: int,
    accumulate: int = 1,
    paused: Paused | None = None,
    keep: Keep | None = None,
) -> Tuned:
    """Train the model in place and return the best epoch by validation, the start included.

    Args:
        spec: learning rate, weight decay, augmentation, epochs and seed.
        task: the task.
        model: a freshly loaded model; its visual tower is changed.
        candidate: its view is used.
        start: the head to begin with.
        parts: what to learn from, choose by and report on.
        hook: told (epoch, validation, loss); True ends the trial.
        deadline: training stops early enough to measure the test split before it.
        workdir: Lightning's root folder; nothing is written there.
        batch: images a step sees at once.
        accumulate: steps whose gradients are summed before the weights move.
        paused: go on from here; ``batch`` must be the same.
        keep: takes the state of the training when the hook ends it, and about once a minute before.

    Raises:
        TrialDiverged: the loss became NaN or infinite.
        DeadlineReached: there was no time for anything.
    """
    train = image_set(task, view=candidate.view, indices=parts.train)
    val = image_set(task, view=candidate.view, indices=parts.val)
    head = Head(
        torch.from_numpy(start.weight).to(model.device),
        torch.from_numpy(start.bias).to(model.device),
        scale=start.scale,
    )
    steps = spec.epochs * math.ceil(math.ceil(len(train) / batch) / accumulate)
    tuner = Tuner(model=model, head=head, spec=spec, metric=task.metric, steps=steps)
    shuffle = torch.Generator().manual_seed(spec.seed)
    with torch.random.fork_rng(), _manners():
        torch.manual_seed(spec.seed)  # dropout and the like
        kept, value, per_image = (
            _begin(tuner, val, metric=task.metric, batch=batch, deadline=deadline)
            if paused is None
            else _take_up(tuner, paused, val, shuffle=shuffle, batch=batch)
        )
        epochs = spec.epochs - len(kept.curve)
        if epochs > 0:

            def save() -> None:
                if keep is not None:
                    keep(_snapshot(tuner, kept=kept, start=value, shuffle=shuffle, batch=batch))

            reserve = per_image * len(parts.test) + _MARGIN
            callback = EpochReport(kept=kept, hook=hook, deadline=deadline, reserve=reserve, save=save)
            tuner.train()
            trainer = _trainer(
                epochs=epochs, callback=callback, device=model.device, accumulate=accumulate, folder=workdir
            )
            trainer.fit(
                tuner,
                train_dataloaders=Batches(images=train, size=batch, generator=shuffle),
                val_dataloaders=Batches(images=val, size=2 * batch),
            )
            tuner.to(model.device)  # Lightning moves the module to the CPU when it is done
            tuner.load_state_dict(kept.state)
    test: float | None = None
    if len(parts.test) and kept.stopped != "pruned":
        images = image_set(task, view=candidate.view, indices=parts.test)
        test = measure_outputs(_predict(tuner, images, batch=2 * batch, deadline=Deadline()), task.metric).metric
    visual = {name: each.cpu() for name, each in copy_state(tuner.visual).items()}
    return Tuned(
        checkpoint=Checkpoint(
            visual=visual if kept.epoch else None,
            weight=head.weight.detach().cpu().numpy(),
            bias=head.bias.detach().cpu().numpy(),
            scale=head.scale,
        ),
        start=value,
        validation=kept.best,
        test=test,
        kept=kept.epoch,
        curve=tuple(kept.curve),
        stopped=kept.stopped,
    )
