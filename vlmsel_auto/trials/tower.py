"""Full fine-tuning of a visual tower and its head by Lightning: the only module that imports it.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch import nn
from torch.nn import functional

from vlmsel_auto.errors import TrialDiverged
from vlmsel_auto.models.classifier import class_logits
from vlmsel_auto.records import Candidate, Metric, Task, TrialSpec
from vlmsel_auto.trials.augment import augment
from vlmsel_auto.trials.checkpoints import Checkpoint
from vlmsel_auto.trials.data import Batch, Batches, ImageSet, Splits, image_set, score
from vlmsel_auto.trials.probe import SMOOTHING, Deadline, EpochHook, TunableModel

__all__ = ["EpochReport", "Tuned", "batch_size", "tune"]

_VALIDATION = "validation"
_CLIP = 1.0
_WARMUP = 0.1  # share of the steps
_HEAD_RATE = 1e-3  # the head is a small linear map: it learns at this rate also where the tower must go slowly
_MARGIN = 0.1  # seconds kept for writing the result before a deadline


class _Head(nn.Module):
    """W = start + change, and a bias. The change is a parameter of its own: weight decay pulls towards the start."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, *, scale: float) -> None:
        super().__init__()
        self.register_buffer("start", weight.clone())
        self.start: torch.Tensor
        self.change = nn.Parameter(torch.zeros_like(weight))
        self.bias = nn.Parameter(bias.clone())
        self.scale = scale

    @property
    def weight(self) -> torch.Tensor:
        """(K, D)."""
        return self.start + self.change

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """(n, D) embeddings -> (n, K) logits."""
        return class_logits(embedding.float(), head=self.weight, bias=self.bias, scale=self.scale)


class _Tuner(pl.LightningModule):
    """Tower and head with their loss and optimiser."""

    def __init__(
        self,
        *,
        model: TunableModel,
        head: _Head,
        spec: TrialSpec,
        metric: Metric,
        steps: int,
        frozen_norms: bool = True,
    ) -> None:
        super().__init__()
        self.visual = model.visual.requires_grad_(True)
        self.head = head
        self._model = model
        self._spec = spec
        self._metric: Metric = metric
        self._steps = steps
        self._frozen_norms = frozen_norms
        self._generator = torch.Generator().manual_seed(spec.seed + 1)
        self._outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.measured = (0.0, 0.0)  # validation metric and loss, in float64 as Lightning would not keep them
        self.train_loss = torch.zeros(())
        self._seen = 0

    def train(self, mode: bool = True) -> _Tuner:  # noqa: FBT001, FBT002 - the signature of nn.Module
        """Batch norms stay in eval mode: their statistics come from pretraining, small batches would spoil them."""
        super().train(mode)
        if mode and self._frozen_norms:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the only common base of batch norms
                    module.eval()
        return self

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (n, S, S, 3) -> logits (n, K)."""
        logits: torch.Tensor = self.head(self._model.embed(self._model.normalise(pixels)))
        return logits

    def on_train_epoch_start(self) -> None:
        """Start the epoch's mean loss."""
        self.train_loss = torch.zeros((), device=self.device)
        self._seen = 0

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's signature
        """Cross entropy with label smoothing on augmented images."""
        pixels, labels = batch
        pixels = augment(pixels, strength=self._spec.augmentation, generator=self._generator)
        loss = functional.cross_entropy(self(pixels), labels, label_smoothing=SMOOTHING)
        self.train_loss += loss.detach() * len(labels)
        self._seen += len(labels)
        return loss

    @property
    def mean_loss(self) -> float:
        """Mean training loss of the epoch so far."""
        return float(self.train_loss) / max(1, self._seen)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Collect logits, in float32 also under mixed precision: the exported model is used in float32."""
        pixels, labels = batch
        with torch.autocast(self.device.type, enabled=False):
            self._outputs.append((self(pixels), labels))

    def on_validation_epoch_end(self) -> None:
        """Log the task's metric and the loss."""
        self.measured = _measure(self._outputs, self._metric)
        self._outputs.clear()
        self.log(_VALIDATION, self.measured[0], logger=False, prog_bar=False)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Mapping[str, object]]]:  # type: ignore[override] # a narrower form of Lightning's union
        """AdamW, no decay on vectors (norms, biases), cosine schedule with warm-up, stepped every batch."""
        rate = self._spec.learning_rate
        tower = list(self.visual.parameters())
        head_rate = max(rate, _HEAD_RATE)
        groups = [
            {"params": [each for each in tower if each.ndim > 1], "weight_decay": self._spec.weight_decay, "lr": rate},
            {"params": [each for each in tower if each.ndim <= 1], "weight_decay": 0.0, "lr": rate},
            {"params": [self.head.change], "weight_decay": self._spec.weight_decay, "lr": head_rate},
            {"params": [self.head.bias], "weight_decay": 0.0, "lr": head_rate},
        ]
        optimizer = torch.optim.AdamW(groups, lr=rate)
        warm = max(1, round(_WARMUP * self._steps))

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - warm) / max(1, self._steps - warm)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def _measure(outputs: list[tuple[torch.Tensor, torch.Tensor]], metric: Metric) -> tuple[float, float]:
    """Metric and mean cross entropy over collected (logits, labels)."""
    logits = torch.cat([each for each, _ in outputs])
    labels = torch.cat([each for _, each in outputs])
    predicted = logits.argmax(dim=1).cpu().numpy()
    return (
        score(metric, labels=labels.cpu().numpy(), predicted=predicted),
        float(functional.cross_entropy(logits.float(), labels)),
    )


@torch.inference_mode()
def _predict(
    tuner: _Tuner, images: ImageSet, *, batch: int, deadline: Deadline
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Logits and labels of all images, in float32."""
    tuner.eval()
    outputs = []
    for pixels, labels in Batches(images=images, size=batch):
        deadline.check()
        outputs.append((tuner(pixels).cpu(), labels))
    return outputs


@dataclass(kw_only=True, eq=False)
class _Kept:
    """The best epoch so far, the start being epoch 0."""

    order: tuple[float, float]  # (metric, -loss): equal metrics are told apart by the loss
    state: dict[str, torch.Tensor]
    epoch: int = 0
    curve: list[float] = field(default_factory=list)
    stopped: Literal["", "pruned", "deadline"] = ""


class EpochReport(pl.Callback):
    """Reads the validation metric after every epoch, keeps the best state, reports, and stops the training gracefully.

    Only Lightning's public interface is used. A missing metric is an error, never a warning: a search that silently
    does not prune wastes its budget.

    Args:
        kept: where the best epoch and the curve are collected.
        hook: told (epoch, validation, loss); True asks for the end of the training.
        deadline: when training must have ended.
        reserve: seconds that the rest of the trial needs after training.
    """

    def __init__(self, *, kept: _Kept, hook: EpochHook, deadline: Deadline, reserve: float) -> None:
        super().__init__()
        self._kept = kept
        self._hook = hook
        self._deadline = deadline
        self._reserve = reserve

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """End the training inside an epoch when the time is over."""
        del pl_module, outputs, batch, batch_idx
        if self._deadline.passed(reserve=self._reserve):
            self._kept.stopped = "deadline"
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the epoch's metric.

        Raises:
            RuntimeError: the module did not log it.
            TrialDiverged: it, or the training loss, is NaN or infinite.
        """
        if not isinstance(pl_module, _Tuner) or _VALIDATION not in trainer.callback_metrics:
            raise RuntimeError(
                f"The metric {_VALIDATION!r} was not logged before on_validation_end, so nothing can be kept, "
                f"but got {sorted(trainer.callback_metrics)!r}"
            )
        kept = self._kept
        order = (pl_module.measured[0], -pl_module.measured[1])
        loss = pl_module.mean_loss
        if not all(math.isfinite(value) for value in (*order, loss)):
            raise TrialDiverged(
                f"The loss became {loss} in epoch {len(kept.curve) + 1}: lower the learning rate, but got "
                f"{-order[1]} on the validation images"
            )
        kept.curve.append(order[0])
        if order > kept.order:
            kept.order, kept.epoch = order, len(kept.curve)
            kept.state = _copy(pl_module)
        if self._hook(len(kept.curve), order[0], loss):
            kept.stopped = "pruned"
            trainer.should_stop = True


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


def _trainer(
    *, spec: TrialSpec, callback: EpochReport, device: torch.device, accumulate: int, folder: Path
) -> pl.Trainer:
    cuda = device.type == "cuda"
    return pl.Trainer(
        accelerator=device.type,
        devices=[device.index or 0] if cuda else 1,
        precision="bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true",  # masters stay in float32
        max_epochs=spec.epochs,
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
    validation: float  # of the kept epoch
    test: float | None  # None: pruned, or no test split
    kept: int  # 0 is the start
    curve: tuple[float, ...]
    stopped: Literal["", "pruned", "deadline"]


def _copy(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


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

    Raises:
        TrialDiverged: the loss became NaN or infinite.
        DeadlineReached: there was no time for anything.
    """
    train = image_set(task, view=candidate.view, indices=parts.train)
    val = image_set(task, view=candidate.view, indices=parts.val)
    head = _Head(
        torch.from_numpy(start.weight).to(model.device),
        torch.from_numpy(start.bias).to(model.device),
        scale=start.scale,
    )
    steps = spec.epochs * math.ceil(math.ceil(len(train) / batch) / accumulate)
    tuner = _Tuner(model=model, head=head, spec=spec, metric=task.metric, steps=steps)
    begun = time.monotonic()
    value, loss = _measure(_predict(tuner, val, batch=2 * batch, deadline=deadline), task.metric)
    per_image = (time.monotonic() - begun) / len(val)
    kept = _Kept(order=(value, -loss), state=_copy(tuner))
    if spec.epochs:
        reserve = per_image * len(parts.test) + _MARGIN
        callback = EpochReport(kept=kept, hook=hook, deadline=deadline, reserve=reserve)
        shuffle = torch.Generator().manual_seed(spec.seed)
        with torch.random.fork_rng(), _manners():
            torch.manual_seed(spec.seed)  # dropout and the like
            tuner.train()
            trainer = _trainer(spec=spec, callback=callback, device=model.device, accumulate=accumulate, folder=workdir)
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
        test, _ = _measure(_predict(tuner, images, batch=2 * batch, deadline=Deadline()), task.metric)
    visual = {name: each.cpu() for name, each in _copy(tuner.visual).items()}
    return Tuned(
        checkpoint=Checkpoint(
            visual=visual if kept.epoch else None,
            weight=head.weight.detach().cpu().numpy(),
            bias=head.bias.detach().cpu().numpy(),
            scale=head.scale,
        ),
        start=value,
        validation=kept.order[0],
        test=test,
        kept=kept.epoch,
        curve=tuple(kept.curve),
        stopped=kept.stopped,
    )
