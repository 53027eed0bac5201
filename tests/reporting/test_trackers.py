"""What trackers keep of a search, read back from their files; a tracker that breaks never ends a search."""

import csv

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from helpers.own_process import run_python
from helpers.tracker_world import TEST, story
from vlmsel_auto.errors import InputError, MissingDependency
from vlmsel_auto.events import Notice
from vlmsel_auto.reporting.trackers import tracked


def run_story(loggers, folder):
    """The events of a small search, logged; what the sink behind was told."""
    heard, events = [], list(story(folder / "report"))
    with tracked(loggers, folder=folder / "logs", about={"task": "birds", "command": "c"}, sink=heard.append) as sink:
        for event in events:
            sink(event)
    assert [each for each in heard if each in events] == events
    return [event.text for event in heard if isinstance(event, Notice)]


def rows(folder):
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_csv_has_a_folder_a_trial_below_that_of_the_search(tmp_path):
    assert run_story("csv", tmp_path) == []
    search = tmp_path / "logs" / "csv" / "version_0"
    assert sorted(each.name for each in search.iterdir() if each.is_dir()) == ["trial-0000", "trial-0001", "trial-0002"]
    curve = [row["validation"] for row in rows(search / "trial-0001") if row["validation"]]
    assert curve == ["0.5", "0.75"]
    assert [row["final/test"] for row in rows(search / "trial-0001")][-1] == str(TEST)
    said = yaml.safe_load((search / "trial-0001" / "hparams.yaml").read_text())
    assert (said["candidate"], said["method"], said["learning_rate"]) == ("ConvNeXt-Mi-64.all-m", "probe", 1e-3)
    assert (said["predicted_rank"], said["state"], said["origin"]) == (2, "complete", "planned")
    assert yaml.safe_load((search / "trial-0002" / "hparams.yaml").read_text())["reason"] == "why <failed>"
    about = yaml.safe_load((search / "hparams.yaml").read_text())
    assert about == {"task": "birds", "command": "c", "report": str(tmp_path / "report" / "report.html")}
    assert rows(search)[-1]["agreement/tau_b"] == "0.5"
    assert rows(search)[-1]["best/validation"] == "0.75"
    run_story("csv", tmp_path)
    assert sorted(each.name for each in (tmp_path / "logs" / "csv").iterdir()) == ["version_0", "version_1"]


def test_tensorboard_files_hold_curves_and_hyperparameters(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    mine = TensorBoardLogger(tmp_path / "tb", name="mine", version="first", default_hp_metric=False)
    assert run_story([mine], tmp_path) == []
    assert not (tmp_path / "logs").exists()
    found = events.EventAccumulator(str(tmp_path / "tb" / "mine" / "first" / "trial-0001")).Reload()
    assert [(each.step, each.value) for each in found.Scalars("validation")] == [(1, 0.5), (2, 0.75)]
    assert found.Scalars("final/test")[0].value == pytest.approx(TEST)
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"ConvNeXt-Mi-64.all-m" in content
    assert b"predicted_rank" in content
    whole = events.EventAccumulator(str(tmp_path / "tb" / "mine" / "first")).Reload()
    assert whole.Scalars("agreement/tau_b")[0].value == 0.5
    assert [each.value for each in whole.Scalars("best_validation")] == [0.5, 0.75, 0.75]


@pytest.mark.filterwarnings("ignore:.*noload.*")  # MLflow's own use of SQLAlchemy
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_has_a_run_a_trial_below_the_run_of_the_search(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    before = mlflow.get_tracking_uri()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    try:
        assert run_story(["mlflow"], tmp_path) == []
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'logs' / 'mlflow.db'}")
        runs = client.search_runs([client.get_experiment_by_name("birds").experiment_id])
    finally:
        mlflow.set_tracking_uri(before)
    by_name = {run.info.run_name: run for run in runs}
    assert sorted(by_name) == ["search", "trial-0000", "trial-0001", "trial-0002"]
    search, trial = by_name["search"], by_name["trial-0001"]
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs} == {None, search.info.run_id}
    assert [each.value for each in client.get_metric_history(trial.info.run_id, "validation")] == [0.5, 0.75]
    assert trial.data.params["candidate"] == "ConvNeXt-Mi-64.all-m"
    assert trial.data.metrics["final/cost"] == 12.0
    assert (trial.info.status, by_name["trial-0002"].info.status) == ("FINISHED", "FAILED")
    assert search.data.metrics["agreement/ndcg5"] == 0.9


OPENED = """
import os, sys
from pathlib import Path
from vlmsel_auto.reporting.trackers import tracked
for name in ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS"):  # where it is silent anyway
    os.environ.pop(name, None)
with tracked("mlflow", folder=Path(sys.argv[1]), about={"task": "birds"}, sink=print):
    pass
from mlflow.telemetry.client import get_telemetry_client
print("client:", get_telemetry_client())
"""


@pytest.mark.slow
def test_mlflow_by_name_tells_its_makers_nothing(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert "client: None" in run_python("-c", OPENED, tmp_path / "logs")
    assert not list((tmp_path / "home").rglob("*telemetry*"))


def test_wandb_offline_has_a_run_a_trial(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert run_story(["wandb"], tmp_path) == []
    files = list((tmp_path / "logs" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 4
    assert sum(b"ConvNeXt-Mi-64.all-m" in each.read_bytes() for each in files) >= 1


class Kept(CSVLogger):
    """Says how it ended."""

    status = None

    def finalize(self, status):
        super().finalize(status)
        self.status = status


class Broken(Kept):
    def log_metrics(self, metrics, step=None):
        raise ConnectionError("server gone")


def test_a_tracker_that_breaks_is_told_once_and_the_others_go_on(tmp_path):
    broken, whole = Broken(tmp_path / "broken"), Kept(tmp_path / "whole")
    (told,) = run_story([broken, whole], tmp_path)
    assert told == "nothing more is logged to Broken: ConnectionError: server gone"
    assert (broken.status, whole.status) == (None, "success")


def test_a_search_that_was_interrupted_is_a_run_that_failed(tmp_path):
    logger = Kept(tmp_path)
    with pytest.raises(KeyboardInterrupt), tracked(logger, folder=tmp_path, about={"task": "t"}, sink=print):
        raise KeyboardInterrupt
    assert logger.status == "failed"


def test_what_is_no_logger_of_these_kinds_is_refused(tmp_path):
    with (
        pytest.raises(InputError, match=r"must be Lightning's of TensorBoard, .*but got <.*DummyLogger"),
        tracked(DummyLogger(), folder=tmp_path, about={"task": "t"}, sink=print),
    ):
        pass


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", False)
    with (
        pytest.raises(MissingDependency, match=r"logging to mlflow needs: pip install 'vlmsel-auto\[mlflow\]'$"),
        tracked("mlflow", folder=tmp_path, about={"task": "t"}, sink=print),
    ):
        pass
