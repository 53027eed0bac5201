"""A visual tower and its head as a Lightning module: loss, metric, optimiser, and the state to resume from.

The callback beside it acts after each epoch: it reports, prunes, and stops in time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional

from vlmsel_auto.errors import TrialDiverged
from vlmsel_auto.models.loadedmodel import LoadedModel, class_logits
from vlmsel_auto.records import Metric, TrialSpec
from vlmsel_auto.tuning.augment import augment
from vlmsel_auto.tuning.data import Batch, Measured, measure
from vlmsel_auto.tuning.paused import Paused
from vlmsel_auto.tuning.trainable import Trainable
from vlmsel_auto.tuning.work import Deadline, Ending, EpochHook

VALIDATION = "validation"  # name of the logged metric
_WARMUP = 0.1  # share of the steps
_SMOOTHING = 0.05  # of labels
_HEAD_RATE = 1e-3  # the head is a small linear map: it learns at this rate also where the tower must go slowly


class Head(nn.Module):
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


class Tuner(pl.LightningModule):
    """Tower and head with their loss and optimiser.

    Args:
        model: the tower, which takes gradients where it is trained.
        trainable: its weights that are trained.
        head: beside it.
        spec: the trial.
        metric: of the task.
        steps: of the optimiser, in all.
    """

    def __init__(
        self,
        *,
        model: LoadedModel,
        trainable: Trainable,
        head: Head,
        spec: TrialSpec,
        metric: Metric,
        steps: int,
    ) -> None:
        super().__init__()
        self.visual = model.visual
        self._trainable = trainable
        self.head = head
        self.model = model
        self._spec = spec
        self._metric: Metric = metric
        self._steps = steps
        self._resume: Paused | None = None
        self.augmenting = torch.Generator().manual_seed(spec.seed + 1)
        self._outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.measured = Measured(metric=0.0, soft=0.0, loss=0.0, images=0)  # in float64, as Lightning would not keep it
        self.of_val = torch.zeros(0)  # logits (n, K) of the validation images after the last epoch
        self.train_loss = torch.zeros(())
        self._seen = 0

    def train(self, mode: bool = True) -> Tuner:  # noqa: FBT001, FBT002 - the signature of nn.Module
        """Batch norms stay in eval mode: their statistics come from pretraining, small batches would spoil them."""
        super().train(mode)
        if mode:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the only common base of batch norms
                    module.eval()
        return self

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (n, S, S, 3) -> logits (n, K); the head is in float32 also under mixed precision."""
        embedded = self.model.embed(self.model.normalise(pixels))
        with torch.autocast(self.device.type, enabled=False):
            logits: torch.Tensor = self.head(embedded)
        return logits

    def on_train_epoch_start(self) -> None:
        """Start the epoch's mean loss."""
        self.train_loss = torch.zeros((), device=self.device)
        self._seen = 0

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's signature
        """Cross entropy with label smoothing on augmented images.

        Images count alike whatever the metric: class weights made towers worse (docs/results/tuning.md).
        """
        pixels, labels = batch
        pixels = augment(pixels, strength=self._spec.settings["augmentation"], generator=self.augmenting)
        loss = functional.cross_entropy(self(pixels), labels, label_smoothing=_SMOOTHING)
        self.train_loss += loss.detach() * len(labels)
        self._seen += len(labels)
        return loss + self._trainable.penalty(self.visual)

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
        self.of_val, labels = (torch.cat(each) for each in zip(*self._outputs, strict=True))
        self.measured = measure(self._metric, logits=self.of_val, labels=labels)
        self._outputs.clear()
        self.log(VALIDATION, self.measured.metric, logger=False, prog_bar=False)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Mapping[str, object]]]:  # type: ignore[override] # a narrower form of Lightning's union
        """AdamW, no decay on vectors (norms, biases), cosine schedule with warm-up, stepped every batch."""
        rate, decay = self._spec.settings["learning_rate"], self._spec.settings["weight_decay"]
        head_rate = max(rate, _HEAD_RATE)
        tower: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, share in self._trainable.shares.items():
            weight = self.visual.get_parameter(name)
            tower.setdefault((share * rate, decay if weight.ndim > 1 else 0.0), []).append(weight)
        groups = [
            *({"params": each, "weight_decay": decays, "lr": at} for (at, decays), each in tower.items()),
            {"params": [self.head.change], "weight_decay": decay, "lr": head_rate},
            {"params": [self.head.bias], "weight_decay": 0.0, "lr": head_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=rate)
        done = 0
        if self._resume is not None:
            done = self._resume.progress.steps
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": _unflatten(self._resume.moments)})

        def factor(step: int) -> float:
            return _rate_factor(step + done, steps=self._steps)

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        return [self.optimizer], [{"scheduler": self.schedule, "interval": "step"}]

    @property
    def moments(self) -> dict[str, torch.Tensor]:
        """The optimiser's state by "PARAMETER.NAME"."""
        state = self.optimizer.state_dict()["state"]
        return {f"{place}.{name}": value for place, values in state.items() for name, value in values.items()}

    @property
    def steps_done(self) -> int:
        """Optimiser steps so far, those before an interruption included."""
        return self.schedule.last_epoch + (self._resume.progress.steps if self._resume is not None else 0)

    @property
    def epochs_done(self) -> float:
        """Epochs so far, also a share of one."""
        return self._spec.epochs * self.steps_done / self._steps

    @property
    def generators(self) -> dict[str, torch.Tensor]:
        """States of the random generators that training draws from, less that of the shuffling."""
        states = {"augment": self.augmenting.get_state(), "torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def resume(self, paused: Paused) -> None:
        """Restore weights and random states of a paused trial; the optimiser follows when Lightning asks for it."""
        self._resume = paused
        self.load_state_dict(dict(paused.module))
        self.augmenting.set_state(paused.generators["augment"])
        torch.set_rng_state(paused.generators["torch"])
        if self.device.type == "cuda" and "cuda" in paused.generators:
            torch.cuda.set_rng_state(paused.generators["cuda"], self.device)


def _unflatten(moments: Mapping[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in moments.items():
        place, _, kind = name.partition(".")
        state.setdefault(int(place), {})[kind] = value
    return state


def _rate_factor(step: int, *, steps: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    warm = max(1, round(_WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm)))


_SAVE_EVERY = 60.0  # seconds of training that a kill may cost


@dataclass(kw_only=True, eq=False)
class Kept:
    """Where training stands. The tower as it is counts, after its last epoch: few images choose an epoch badly.

    One that the deadline cuts short is measured, kept and counted as others are: its steps are worth more than none.
    """

    measured: Measured  # after the last epoch, or the start
    of_val: torch.Tensor | None = None  # logits (n, K) that were measured; None: resumed, before the next epoch
    curve: list[float] = field(default_factory=list)
    ending: Ending = Ending.COMPLETE


class EpochReport(pl.Callback):
    """Reads the validation metric after every epoch, reports, and stops the training gracefully.

    Only Lightning's public interface is used. A missing metric is an error, never a warning: a search that silently
    does not prune wastes its budget.

    Args:
        kept: where measurements and curve are collected.
        hook: told (epoch, validation, loss); True asks for the end of the training.
        deadline: when training must have ended.
        reserve: seconds that the rest of the trial needs after training.
        save: writes the state of the training; called about once a minute.
    """

    def __init__(
        self,
        *,
        kept: Kept,
        hook: EpochHook,
        deadline: Deadline,
        reserve: float,
        save: Callable[[], None],
    ) -> None:
        super().__init__()
        self._kept = kept
        self._hook = hook
        self._deadline = deadline
        self._reserve = reserve
        self._save = save
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """End the training inside an epoch when the time is over; what it reached is still measured."""
        del pl_module, outputs, batch, batch_idx
        if self._deadline.passed(reserve=self._reserve):
            self._kept.ending = Ending.DEADLINE
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the epoch's metric.

        Raises:
            RuntimeError: the module did not log it.
            TrialDiverged: it, or the training loss, is NaN or infinite.
        """
        if not isinstance(pl_module, Tuner) or VALIDATION not in trainer.callback_metrics:
            raise RuntimeError(
                f"The metric {VALIDATION!r} was not logged before on_validation_end, so nothing can be kept, "
                f"but got {sorted(trainer.callback_metrics)!r}"
            )
        kept = self._kept
        measured = pl_module.measured
        loss = pl_module.mean_loss
        if not all(math.isfinite(value) for value in (measured.metric, measured.loss, loss)):
            raise TrialDiverged(
                f"The loss became {loss} in epoch {len(kept.curve) + 1}: lower the learning rate, but got "
                f"{measured.loss} on the validation images"
            )
        kept.curve.append(measured.metric)
        kept.measured, kept.of_val = measured, pl_module.of_val
        if self._hook(len(kept.curve), measured.metric, loss):
            kept.ending = Ending.PRUNED
            trainer.should_stop = True
        if kept.ending is Ending.COMPLETE and time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()
            self._saved = time.monotonic()
