"""What happens after each epoch of fine-tuning: keep the best state, report, pause, stop in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import lightning.pytorch as pl
import torch
from torch import nn

from vlmsel_auto.errors import TrialDiverged
from vlmsel_auto.trials.data import Measured
from vlmsel_auto.trials.probe import Deadline, EpochHook
from vlmsel_auto.trials.tower import VALIDATION, Tuner

__all__ = ["EpochReport", "Kept", "copy_state"]

_SAVE_EVERY = 60.0  # seconds of training that a kill may cost


@dataclass(kw_only=True, eq=False)
class Kept:
    """The best epoch so far, the start being epoch 0."""

    best: Measured
    state: dict[str, torch.Tensor]
    epoch: int = 0
    curve: list[float] = field(default_factory=list)
    stopped: Literal["", "pruned", "deadline"] = ""


def copy_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's state dict, in memory of its own."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _no_save() -> None:
    return


class EpochReport(pl.Callback):
    """Reads the validation metric after every epoch, keeps the best state, reports, and stops the training gracefully.

    Only Lightning's public interface is used. A missing metric is an error, never a warning: a search that silently
    does not prune wastes its budget.

    Args:
        kept: where the best epoch and the curve are collected.
        hook: told (epoch, validation, loss); True asks for the end of the training.
        deadline: when training must have ended.
        reserve: seconds that the rest of the trial needs after training.
        save: writes the state of the training; called when the hook ends it, and about once a minute before.
    """

    def __init__(
        self,
        *,
        kept: Kept,
        hook: EpochHook,
        deadline: Deadline,
        reserve: float,
        save: Callable[[], None] = _no_save,
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
        if not isinstance(pl_module, Tuner) or VALIDATION not in trainer.callback_metrics:
            raise RuntimeError(
                f"The metric {VALIDATION!r} was not logged before on_validation_end, so nothing can be kept, "
                f"but got {sorted(trainer.callback_metrics)!r}"
            )
        kept = self._kept
        measured = pl_module.measured
        loss = pl_module.mean_loss
        if not all(math.isfinite(value) for value in (*measured.order, loss)):
            raise TrialDiverged(
                f"The loss became {loss} in epoch {len(kept.curve) + 1}: lower the learning rate, but got "
                f"{measured.loss} on the validation images"
            )
        kept.curve.append(measured.metric)
        if measured.order > kept.best.order:
            kept.best, kept.epoch = measured, len(kept.curve)
            kept.state = copy_state(pl_module)
        pause = self._hook(len(kept.curve), measured.metric, loss)
        if pause:
            kept.stopped = "pruned"
            trainer.should_stop = True
        if pause or (not kept.stopped and time.monotonic() - self._saved > _SAVE_EVERY):
            self._save()
            self._saved = time.monotonic()
