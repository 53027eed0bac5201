"""Lightning's own loggers as runs of a tracker: the search's run, and one of the same kind for each trial.

A Lightning logger is one run. The functions of a kind say how its package groups runs: TensorBoard and CSV by folders,
MLflow by the tag of the parent, Weights & Biases by a group.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, cast

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from vlmsel_auto.errors import InputError, MissingDependency
from vlmsel_auto.reporting.trackers import Plain, names_of

Loggers: TypeAlias = str | Logger | Sequence[str | Logger]

_KINDS: Final = (TensorBoardLogger, CSVLogger, MLFlowLogger, WandbLogger)
_REPORT: Final = ("report.html", "report.json")


def open_runs(loggers: Loggers, *, folder: Path, name: str) -> tuple[LoggedRun, ...]:
    """The search's run of each tracker.

    Args:
        loggers: "tensorboard", "csv", "mlflow", "wandb", or loggers of Lightning of these kinds.
        folder: trackers by name keep their files here; MLflow only where ``MLFLOW_TRACKING_URI`` is not set.
        name: of the experiment or project, for trackers by name.

    Raises:
        InputError: another name or kind.
        MissingDependency: the tracker's package is not installed.
    """
    names_of(loggers)  # refuses others
    several = [loggers] if isinstance(loggers, (str, Logger)) else list(loggers)
    return tuple(LoggedRun(logger=_logger(one, folder=folder, name=name)) for one in several)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedRun:
    """One run of a tracker, which is one Lightning logger."""

    logger: Logger

    def __str__(self) -> str:
        """The kind of logger."""
        return type(self.logger).__name__

    def trial(self, name: str) -> LoggedRun:
        """Begin a run of the same kind, below this one."""
        return LoggedRun(logger=_below(self.logger, name))

    def describe(self, values: Mapping[str, Plain]) -> None:
        """Note hyperparameters."""
        self.logger.log_hyperparams(dict(values))

    def measure(self, values: Mapping[str, float], *, step: int) -> None:
        """Note a point of each curve."""
        self.logger.log_metrics(dict(values), step=step)

    def attach(self, folder: Path) -> None:
        """Upload the report to MLflow or W&B; the others only keep where it is."""
        files = [folder / name for name in _REPORT]
        if isinstance(self.logger, MLFlowLogger):
            for file in files:
                self.logger.experiment.log_artifact(self.logger.run_id, str(file))
        elif isinstance(self.logger, WandbLogger):
            for file in files:
                self.logger.experiment.save(str(file), base_path=str(folder), policy="now")
        else:
            self.describe({"report": str(files[0])})

    def end(self, *, good: bool, values: Mapping[str, Plain], metrics: Mapping[str, float]) -> None:
        """Note what came out, and close the run."""
        logger = self.logger
        if isinstance(logger, TensorBoardLogger):  # its table of hyperparameters wants both at once, and once
            logger.log_hyperparams({**dict(cast("Mapping[str, Plain]", logger.hparams)), **values}, dict(metrics))
        else:
            if values:
                self.describe(values)
            if metrics:
                logger.log_metrics(dict(metrics))
        logger.finalize("success" if good else "failed")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=0 if good else 1)


def _logger(wanted: str | Logger, *, folder: Path, name: str) -> Logger:
    if isinstance(wanted, Logger):
        if not isinstance(wanted, _KINDS):
            kinds = ", ".join(each.__name__ for each in _KINDS)
            raise InputError(f"a logger must be one of {kinds}, for its trials have runs, but got {wanted!r}")
        return wanted
    try:
        match wanted:
            case "tensorboard":
                return TensorBoardLogger(folder, name=wanted, default_hp_metric=False)
            case "csv":
                return CSVLogger(folder, name=wanted)
            case "mlflow":
                return _mlflow(folder, name=name)
            case _:  # wandb
                folder.mkdir(parents=True, exist_ok=True)  # it would write elsewhere
                return WandbLogger(name="search", project=name, save_dir=folder, reinit="create_new")
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"logging to {wanted} needs its package; install it with: pip install 'vlmsel-auto[{wanted}]'"
        ) from error


def _mlflow(folder: Path, *, name: str) -> MLFlowLogger:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # its makers are told nothing; read at its import
    server = os.environ.get("MLFLOW_TRACKING_URI")
    if server:
        return MLFlowLogger(name, run_name="search", tracking_uri=server)
    folder.mkdir(parents=True, exist_ok=True)
    here = folder.resolve()
    return MLFlowLogger(
        name,
        run_name="search",
        tracking_uri=f"sqlite:///{here / 'mlflow.db'}",
        artifact_location=(here / "mlflow-artifacts").as_uri(),
    )


def _below(logger: Logger, name: str) -> Logger:
    """A logger of the same kind for a trial."""
    match logger:
        case TensorBoardLogger() | CSVLogger():
            version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
            inner = f"{version}/{name}"
            if isinstance(logger, CSVLogger):
                return CSVLogger(logger.save_dir, name=logger.name, version=inner)
            return TensorBoardLogger(logger.save_dir, name=logger.name, version=inner, default_hp_metric=False)
        case MLFlowLogger():
            client = logger.experiment
            return MLFlowLogger(
                client.get_experiment(logger.experiment_id).name,
                run_name=name,
                tracking_uri=client.tracking_uri,
                tags={"mlflow.parentRunId": logger.run_id},
            )
        case WandbLogger():
            import wandb

            run = logger.experiment
            made = wandb.init(  # not through the logger: it would go on with a run of the user that is open
                project=run.project, entity=run.entity, dir=logger.save_dir, group=run.group or run.id, name=name,
                job_type="trial", reinit="create_new",
            )  # fmt: skip
            return WandbLogger(experiment=made)
        case _:
            raise TypeError(f"a logger that was opened here is needed, but got {logger!r}")
