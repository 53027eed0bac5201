"""Runs of Lightning's loggers, read back from what each package keeps: event files, CSV, a real MLflow server, W&B."""

import csv
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from helpers.own_process import run_python
from helpers.tracker_world import TEST, story
from vlmsel_auto.errors import InputError, MissingDependency
from vlmsel_auto.events import Notice
from vlmsel_auto.reporting.loggers import open_runs
from vlmsel_auto.reporting.trackers import tracked


def run_story(loggers, folder):
    """The events of a small search, logged; what the sink behind heard."""
    heard = []
    report = folder / "report"
    report.mkdir(parents=True)
    for name in ("report.html", "report.json"):
        (report / name).write_text(name)
    with tracked(loggers, folder=folder / "logs", about={"task": "birds", "command": "c"}, sink=heard.append) as sink:
        for event in story(report):
            sink(event)
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
    about = yaml.safe_load((search / "hparams.yaml").read_text())
    assert about["task"] == "birds"
    assert about["predicted/01"] == "ViT-Mi-8-64.all-l"
    assert about["report"] == str(tmp_path / "report" / "report.html")
    assert rows(search)[-1]["agreement/tau_b"] == "0.5"


def test_a_second_search_has_a_folder_of_its_own(tmp_path):
    run_story("csv", tmp_path)
    (tmp_path / "report").rename(tmp_path / "old")
    run_story("csv", tmp_path)
    assert sorted(each.name for each in (tmp_path / "logs" / "csv").iterdir()) == ["version_0", "version_1"]


def test_tensorboard_files_hold_curves_and_hyperparameters(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert run_story([TensorBoardLogger(tmp_path / "tb", name="mine", default_hp_metric=False)], tmp_path) == []
    search = tmp_path / "tb" / "mine" / "version_0"
    found = events.EventAccumulator(str(search / "trial-0001")).Reload()
    assert [(each.step, each.value) for each in found.Scalars("validation")] == [(1, 0.5), (2, 0.75)]
    assert found.Scalars("final/test")[0].value == pytest.approx(TEST)
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"ConvNeXt-Mi-64.all-m" in content
    assert b"predicted_rank" in content
    whole = events.EventAccumulator(str(search)).Reload()
    assert whole.Scalars("agreement/tau_b")[0].value == 0.5
    assert [each.value for each in whole.Scalars("best_validation")] == [0.5, 0.75, 0.75]


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory):
    """A real server on loopback, of MLflow's own."""
    pytest.importorskip("mlflow")
    pytest.importorskip("flask_cors")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
               "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}",
               "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **settings}, start_new_session=True
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert server.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=5).close()  # noqa: S310 - loopback
                break
            except OSError:
                time.sleep(0.5)
        yield uri
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


@pytest.mark.slow  # the server needs a quarter of a minute to start
def test_mlflow_server_has_a_run_a_trial_below_the_run_of_the_search(mlflow_server, tmp_path):
    from mlflow import MlflowClient

    assert run_story(MLFlowLogger("mine", run_name="search", tracking_uri=mlflow_server), tmp_path) == []
    client = MlflowClient(mlflow_server)
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert sorted(by_name) == ["search", "trial-0000", "trial-0001", "trial-0002"]
    search, trial = by_name["search"], by_name["trial-0001"]
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs} == {None, search.info.run_id}
    assert [each.value for each in client.get_metric_history(trial.info.run_id, "validation")] == [0.5, 0.75]
    assert trial.data.params["candidate"] == "ConvNeXt-Mi-64.all-m"
    assert trial.data.metrics["final/cost"] == 12.0
    assert (trial.info.status, by_name["trial-0002"].info.status) == ("FINISHED", "FAILED")
    assert search.data.metrics["agreement/ndcg5"] == 0.9
    assert {each.path for each in client.list_artifacts(search.info.run_id)} == {"report.html", "report.json"}


@pytest.mark.filterwarnings("ignore:.*noload.*")  # MLflow's own use of SQLAlchemy
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_by_name_keeps_a_database_in_the_folder(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = mlflow.get_tracking_uri()
    try:
        assert run_story(["mlflow"], tmp_path) == []
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'logs' / 'mlflow.db'}")
        runs = client.search_runs([client.get_experiment_by_name("birds").experiment_id])
        assert len(runs) == 4
        assert len(list((tmp_path / "logs" / "mlflow-artifacts").rglob("report.html"))) == 1
    finally:
        mlflow.set_tracking_uri(before)


OPENED = """
import os, sys
from pathlib import Path
from vlmsel_auto.reporting.loggers import open_runs
for name in ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS"):  # where it is silent anyway
    os.environ.pop(name, None)
(run,) = open_runs("mlflow", folder=Path(sys.argv[1]), name="birds")
run.describe({"a": 1})
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
    assert len(list((tmp_path / "logs" / "wandb").glob("offline-run-*/files/report.html"))) == 1


def test_what_is_no_logger_of_these_kinds_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must be one of TensorBoardLogger, .*but got <.*DummyLogger"):
        open_runs(DummyLogger(), folder=tmp_path, name="x")


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", False)
    with pytest.raises(MissingDependency, match=r"logging to mlflow needs .*'vlmsel-auto\[mlflow\]'$"):
        open_runs("mlflow", folder=tmp_path, name="x")
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_is_a_name_is_kept(tmp_path):
    run_story(CSVLogger(tmp_path / "x", name="n", version="first"), tmp_path)
    assert (tmp_path / "x" / "n" / "first" / "trial-0000" / "metrics.csv").is_file()
