"""Whether the first steps of fine-tuning unlearn what the head knew: the rate is then too high for the tower."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import lightning.pytorch as pl

from vlmsel_auto.tuning.data import Batch

_STEPS: Final = 20
_MEAN_OF: Final = 5  # steps: one batch tells little
_ABOUT, _BELOW = 0.95, 0.75  # times the loss of a guess


class Collapse(Exception):
    """Training is worse than chance after a few steps. Never leaves the trial."""


class CollapseWatch(pl.Callback):
    """Ends training by `Collapse` within its first steps.

    Own choice: the loss is not finite, or its mean over the last five of twenty steps is about that of a guess, log K,
    while the first step's was well below.
    """

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self._chance = math.log(classes)
        self._losses: list[float] = []

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Look at a loss.

        Raises:
            Collapse: as the class says.
        """
        del trainer, pl_module, batch, batch_idx
        if len(self._losses) >= _STEPS or not isinstance(outputs, Mapping):
            return
        self._losses.append(float(outputs["loss"]))
        first, last = self._losses[0], sum(self._losses[-_MEAN_OF:]) / _MEAN_OF
        unlearned = len(self._losses) == _STEPS and last > _ABOUT * self._chance and first < _BELOW * self._chance
        if unlearned or not math.isfinite(self._losses[-1]):
            raise Collapse(
                f"after {len(self._losses)} steps the loss is {self._losses[-1]:.2g}, of a guess {self._chance:.2g}"
            )
