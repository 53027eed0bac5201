"""Validation metrics of a Lightning training, reported after every epoch to whatever chose its parameters.

Use:

trainer = Trainer(callbacks=[ReportValidation.to_search(search, params, monitor="val_acc")])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from lightning.pytorch import Callback, LightningModule, Trainer

from .ask_tell import AskTell, Params

if TYPE_CHECKING:
    import optuna

__all__ = ["Report", "ReportValidation"]

Report: TypeAlias = Callable[[int, float], bool]  # epoch from 0 and metric -> whether training should end


class ReportValidation(Callback):
    """Reports one logged metric after each validation, and ends the training when it is told to.

    Args:
        report: takes the epoch and the metric.
        monitor: name under which the module logs the metric.
    """

    def __init__(self, report: Report, *, monitor: str) -> None:
        self._report = report
        self._monitor = monitor
        self.value: float | None = None  # latest
        self.is_pruned = False  # whether the training was told to end

    @classmethod
    def to_search(cls, search: AskTell, params: Params, *, monitor: str) -> ReportValidation:
        """To a `CandidateSearch` or `PastSearch`; tell it the ``value``, or None if ``is_pruned``."""

        def report(epoch: int, value: float) -> bool:
            return search.should_prune(params, step=epoch, value=value)

        return cls(report, monitor=monitor)

    @classmethod
    def to_optuna(cls, trial: optuna.Trial, *, monitor: str) -> ReportValidation:
        """To a trial of Optuna, whose pruner ends the training by `optuna.TrialPruned`."""
        from optuna import TrialPruned

        def report(epoch: int, value: float) -> bool:
            trial.report(value, step=epoch)
            if trial.should_prune():
                raise TrialPruned(f"{monitor} {value:.4g} after epoch {epoch + 1}")
            return False

        return cls(report, monitor=monitor)

    @classmethod
    def to_ray(cls, *, monitor: str) -> ReportValidation:
        """To the Ray Tune trial that this process is; Tune ends the process itself."""
        from ray import tune

        def report(epoch: int, value: float) -> bool:
            tune.report({monitor: value, "epoch": epoch})
            return False

        return cls(report, monitor=monitor)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, once an epoch of training was validated.

        Raises:
            KeyError: the module logged no such metric.
        """
        del pl_module
        if trainer.sanity_checking:
            return
        if self._monitor not in trainer.callback_metrics:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise KeyError(f"{self._monitor!r} must be logged in validation, but got {logged}")
        self.value = float(trainer.callback_metrics[self._monitor])
        if math.isfinite(self.value) and self._report(trainer.current_epoch, self.value):
            self.is_pruned = True
            trainer.should_stop = True
