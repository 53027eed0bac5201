"""Validation metrics of a Lightning training, reported after every validation to whatever chose its parameters.

Use:

trainer = Trainer(callbacks=[ReportValidation.to_search(search, params, monitor="val_acc")])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from .ask_tell import AskTell, Params

if TYPE_CHECKING:
    import optuna

__all__ = ["Report", "ReportValidation"]

Report: TypeAlias = Callable[[int, float], bool]  # step and metric -> whether training should end


class ReportValidation(Callback):
    """Reports one logged metric after each validation, and ends the training when it is told to.

    A step is the epoch, from 0; where an epoch has several validations, each is a step of its own.

    Args:
        report: takes the step and the metric, which may be NaN.
        monitor: name under which the module logs the metric.
    """

    def __init__(self, report: Report, *, monitor: str) -> None:
        self._report = report
        self._monitor = monitor
        self.value: float | None = None  # latest
        self.is_pruned = False  # whether the training was told to end
        self._step = -1  # latest

    @classmethod
    def to_search(cls, search: AskTell, params: Params, *, monitor: str) -> ReportValidation:
        """To a `CandidateSearch` or `PastSearch`; tell it the ``value``, or None if ``is_pruned``."""

        def report(step: int, value: float) -> bool:
            return search.should_prune(params, step=step, value=value)

        return cls(report, monitor=monitor)

    @classmethod
    def to_optuna(cls, trial: optuna.Trial, *, monitor: str) -> ReportValidation:
        """To a trial of Optuna, whose pruner ends the training by `optuna.TrialPruned`."""
        from optuna import TrialPruned

        def report(step: int, value: float) -> bool:
            trial.report(value, step=step)
            if trial.should_prune():
                raise TrialPruned(f"{monitor} {value:.4g} at step {step}")
            return False

        return cls(report, monitor=monitor)

    @classmethod
    def to_ray(cls, *, monitor: str) -> ReportValidation:
        """To the Ray Tune trial that this process is; Tune ends the process itself."""
        from ray import tune

        def report(step: int, value: float) -> bool:
            tune.report({monitor: value, "epoch": step})
            return False

        return cls(report, monitor=monitor)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, once a part of the training was validated: not the check before it, nor a validation by itself.

        Raises:
            KeyError: the module logged no such metric.
        """
        del pl_module
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self._monitor not in trainer.callback_metrics:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise KeyError(f"{self._monitor!r} must be logged in validation, but got {logged}")
        self.value = float(trainer.callback_metrics[self._monitor])
        self._step = max(trainer.current_epoch, self._step + 1)
        if self._report(self._step, self.value):
            self.is_pruned = True
            trainer.should_stop = True
