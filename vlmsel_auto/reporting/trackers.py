"""A search in experiment trackers, by Lightning's loggers: a run for the search, and one for each finished trial.

A Lightning logger is one run. TensorBoard and CSV group runs by folders, MLflow by the tag of the parent, W&B by a
group. A tracker that fails is told once and left out from then on: it never ends a search.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from vlmsel_auto.errors import InputError, MissingDependency
from vlmsel_auto.events import Event, Notice, RankingReady, ReportWritten, Sink, TrialFinished
from vlmsel_auto.records import TrialResult, TrialState

Loggers: TypeAlias = str | Logger | Sequence[str | Logger]


@contextmanager
def tracked(loggers: Loggers, *, folder: Path, about: Mapping[str, str], sink: Sink) -> Iterator[Sink]:
    """A sink that passes every event on to ``sink`` and logs it to the trackers.

    Trackers by name keep their files in ``folder`` and call their experiment or project by the "task" of ``about``. An
    InputError refuses another name or kind; a MissingDependency says which package is not there.
    """
    several = [loggers] if isinstance(loggers, (str, Logger)) else loggers
    runs = [_SearchRun(logger=_opened(each, folder=folder, name=about["task"])) for each in several]

    def all_runs(action: Callable[[_SearchRun], None]) -> None:
        for run in tuple(runs):
            try:
                action(run)
            except Exception as error:  # noqa: BLE001 - whatever a tracker's client raises, the search goes on
                runs.remove(run)
                told = f"nothing more is logged to {type(run.logger).__name__}: {type(error).__name__}: {error}"
                sink(Notice(text=told, level="warning"))

    def heard(event: Event, /) -> None:
        sink(event)
        all_runs(lambda run: run.note(event))

    all_runs(lambda run: run.logger.log_hyperparams(dict(about)))
    good = False  # also after Ctrl+C: trackers show a run that failed, not one that still runs
    try:
        yield heard
        good = True
    finally:
        all_runs(lambda run: _end(run.logger, good=good))


@dataclass(kw_only=True, eq=False)
class _SearchRun:
    """One tracker's run of the search."""

    logger: Logger
    order: Sequence[str] = ()  # of the candidates, as predicted before any trial

    def note(self, event: Event) -> None:
        match event:
            case RankingReady(updated=False):
                self.order = event.ranking.order
            case TrialFinished(result=result, leader=leader):
                self._log(result)
                if leader is not None:
                    self.logger.log_metrics(_finite({"best_validation": leader.validation}), step=result.number)
            case ReportWritten():
                self.logger.log_hyperparams({"report": str(event.directory / "report.html")})
                figures = ("tau_b", "weighted_tau", "ndcg5", "top1_loss", "top5_loss")
                found = {f"agreement/{name}": getattr(event.agreement, name) for name in figures}
                for name, model in (("best", event.best), ("ensemble", event.ensemble)):
                    found |= {f"{name}/{split}": getattr(model, split, None) for split in ("validation", "test")}
                self.logger.log_metrics(_finite(found))

    def _log(self, result: TrialResult) -> None:
        """A run of what was tried, its curve, and what came out."""
        spec, logger = result.spec, _beside(self.logger, f"trial-{result.number:04d}")
        tried = {name: getattr(spec, name) for name in ("candidate", "method", "epochs", "fold", "seed")}
        ended = {"state": result.state.value, "origin": result.origin.value, "reason": result.reason}
        params: dict[str, str | float] = {**tried, **spec.settings, **ended}
        if spec.candidate in self.order:
            params["predicted_rank"] = self.order.index(spec.candidate) + 1
        for epoch, validation in enumerate(result.curve, start=1):
            logger.log_metrics(_finite({"validation": validation}), step=epoch)
        final = _finite({f"final/{name}": getattr(result, name) for name in ("validation", "test", "seconds", "cost")})
        if isinstance(logger, TensorBoardLogger):  # its table of hyperparameters wants both at once
            logger.log_hyperparams(params, dict(final))
        else:
            logger.log_hyperparams(params)
            logger.log_metrics(final)
        _end(logger, good=result.state is not TrialState.FAILED)


def _end(logger: Logger, *, good: bool) -> None:
    logger.finalize("success" if good else "failed")
    if isinstance(logger, WandbLogger):
        logger.experiment.finish(exit_code=0 if good else 1)


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def _opened(wanted: str | Logger, *, folder: Path, name: str) -> Logger:
    """The logger of the search's run."""
    if isinstance(wanted, str):
        folder.mkdir(parents=True, exist_ok=True)  # else trackers write elsewhere, or not at all
    try:
        match wanted:
            case TensorBoardLogger() | CSVLogger() | MLFlowLogger() | WandbLogger():
                return wanted
            case "tensorboard":
                return TensorBoardLogger(folder, name=wanted, default_hp_metric=False)
            case "csv":
                return CSVLogger(folder, name=wanted)
            case "mlflow":
                os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # its makers are told nothing
                server = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
                return MLFlowLogger(name, run_name="search", tracking_uri=server)
            case "wandb":
                return WandbLogger(name="search", project=name, save_dir=folder, reinit="create_new")
            case _:
                raise InputError(f"a logger must be Lightning's of TensorBoard, CSV, MLflow or W&B, but got {wanted!r}")
    except ModuleNotFoundError as error:
        raise MissingDependency(f"logging to {wanted} needs: pip install 'vlmsel-auto[{wanted}]'") from error


def _beside(logger: Logger, name: str) -> Logger:
    """A logger of the same kind for a trial."""
    match logger:
        case CSVLogger() | TensorBoardLogger():
            inner = Path(logger.log_dir, name).relative_to(logger.root_dir)
            return type(logger)(logger.save_dir, name=logger.name, version=str(inner))
        case MLFlowLogger(experiment=client):
            experiment = client.get_experiment(logger.experiment_id).name
            parent = {"mlflow.parentRunId": logger.run_id}
            return MLFlowLogger(experiment, run_name=name, tracking_uri=client.tracking_uri, tags=parent)
        case WandbLogger(experiment=run):
            import wandb

            # not through the logger: it would go on with a run of the user that is open
            where = {"project": run.project, "entity": run.entity, "dir": logger.save_dir, "group": run.group or run.id}
            return WandbLogger(experiment=wandb.init(**where, name=name, job_type="trial", reinit="create_new"))
    raise TypeError(f"a logger that was opened here is needed, but got {logger!r}")
