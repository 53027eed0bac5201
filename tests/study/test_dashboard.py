"""The dashboard of a search: what its tables say, that nothing can be changed there, and that a browser reads it."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.browser import browser  # noqa: F401 - a fixture
from helpers.drawings import draw_task
from helpers.tuning_world import digits, spec
from vlmsel_auto.errors import InputError
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.records import Budget, TrialOrigin, TrialResult, TrialState
from vlmsel_auto.study.dashboard import HOST, open_view, serve
from vlmsel_auto.study.journal import JOURNAL
from vlmsel_auto.study.opening import open_study
from vlmsel_auto.study.optuna_study import Prediction
from vlmsel_auto.tuning.methods import FINETUNE, METHODS, PROBE

NAMES = ("a", "b")
PREDICTION = Prediction(rank=2, p_best=0.25, forecast=0.71234, sd=0.1)


def finished(number: int, **changes: object) -> TrialResult:
    made = TrialResult(number=number, spec=spec(), state=TrialState.COMPLETE, origin=TrialOrigin.PLANNED,
                       validation=0.8, test=0.7, curve=(0.8,), epochs_run=1, seconds=1.0, cost=12.3)  # fmt: skip
    return replace(made, **changes)


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """Three trials: a lucky tower, a head that is expected to be better, one that was paused; and one that runs."""
    point = {"learning_rate": 0.1, "weight_decay": 0.2, "augmentation": 0.3, "epochs": 0.4}
    tower = NextTrial(candidate="b", method=FINETUNE.name, point=point, origin=TrialOrigin.PLANNED, why="told", fold=3)
    head = replace(tower, candidate="a", method=PROBE.name, point={}, fold=0)
    with open_study(task=digits(), names=NAMES, methods=METHODS, workdir=tmp_path, seed=0, done=()) as study:
        for number, planned in enumerate((tower, head, tower, head)):
            study.queue(planned, prediction=PREDICTION)
            study.take()
            if planned is tower:
                study.report(number, rung=1, value=0.6)
        study.close(finished(0, validation=0.95))
        study.close(finished(1, validation=0.9, spec=replace(spec(), settings={}, epochs=0)))
        study.close(finished(2, state=TrialState.PRUNED))
        study.expect({0: 0.85, 1: 0.88})
    return tmp_path


def test_trials_are_shown_in_a_readers_terms(workdir: Path) -> None:
    tower, head, paused, running = open_view(workdir).get_all_trials(0)
    assert tower.params == {"candidate": "b", "method": "fine-tuning"}
    assert tower.user_attrs == {
        "predicted rank": 2, "P(best)": 0.25, "forecast": 0.7123, "validation": 0.95, "cost": 12.3, "why": "told",
        "fold": 3, **spec().settings, "epochs": spec().epochs,
    }  # fmt: skip
    assert tower.intermediate_values == {1: 0.6, 4: 0.95}
    assert head.params == {"candidate": "a", "method": "linear probe"}
    assert "fold" not in head.user_attrs  # it is scored on all images
    assert paused.state.name == "PRUNED"
    assert paused.intermediate_values == {1: 0.6}
    assert running.state.name == "RUNNING"
    assert running.user_attrs["forecast"] == 0.7123


def test_the_best_trial_is_the_one_that_is_expected_to_be(workdir: Path) -> None:
    view = open_view(workdir)
    assert view.get_best_trial(0).number == 1
    assert view.get_best_trial(0).value == 0.88
    assert view.get_trial(0).value == 0.85  # though its validation is the highest


def test_a_search_that_goes_on_is_followed(workdir: Path) -> None:
    view = open_view(workdir)
    assert len(view.get_all_trials(0)) == 4
    with open_study(task=digits(), names=NAMES, methods=METHODS, workdir=workdir, seed=0, done=()) as study:
        study.expect({0: 0.9, 1: 0.88})
    assert view.get_best_trial(0).number == 0


@pytest.fixture
def address(workdir: Path) -> Iterator[str]:
    pytest.importorskip("optuna_dashboard")
    with served(workdir) as found:
        yield found


class served:  # noqa: N801 - a context manager
    """The command, in a process of its own."""

    def __init__(self, workdir: Path) -> None:
        command = [sys.executable, "-m", "vlmsel_auto", "dashboard", str(workdir), "--port", "0"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> str:
        return re.search(r"http://\S+", self._process.stderr.readline())[0]

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        rest = self._process.communicate(timeout=60)[1]
        assert (self._process.returncode, rest) == (0, "")


def test_it_is_served_on_loopback_and_nothing_can_be_changed(workdir: Path, address: str) -> None:
    before = (workdir / JOURNAL).read_bytes()
    assert address.startswith(f"http://{HOST}:")
    study = address.replace("dashboard", "api")
    told = json.loads(urllib.request.urlopen(study).read())  # noqa: S310 - loopback
    assert told["best_trials"][0]["number"] == 1
    assert "The best trial here is" in told["note"]["body"].replace("\n", " ")
    for method in ("DELETE", "PUT", "POST"):
        request = urllib.request.Request(study, data=b"{}", method=method)  # noqa: S310 - loopback
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request)  # noqa: S310 - loopback
    assert (workdir / JOURNAL).read_bytes() == before


def test_refusals(tmp_path: Path, workdir: Path) -> None:
    with pytest.raises(InputError, match="a search that has begun its trials"):
        open_view(tmp_path / "elsewhere")
    pytest.importorskip("optuna_dashboard")
    with pytest.raises(InputError, match="needs a free port, choose another --port, but got"):
        serve(workdir, port=0, ready=lambda address: serve(workdir, port=int(re.search(r":(\d+)/", address)[1]),
                                                           ready=lambda _: None))  # fmt: skip


@pytest.mark.slow
def test_a_browser_reads_the_trials_of_a_real_search(browser, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    pytest.importorskip("optuna_dashboard")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    from vlmsel_auto.pipeline.search import search

    found = search(draw_task(tmp_path / "photos"), candidates=["EffNet-Mi-64.all-m", "RN-Mi-64.glyph-s"],
                   budget=Budget(trials=4), workdir=tmp_path / "work", learn=False)  # fmt: skip
    with served(tmp_path / "work") as address:
        browser.get(f"{address}/smartSelection")
        wait = WebDriverWait(browser, 60)
        wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "tbody tr td"))
        heads = [each.get_attribute("textContent") for each in browser.find_elements(By.CSS_SELECTOR, "thead th")]
        head = [each.removesuffix("sorted ascending").strip() for each in heads]
        rows = [
            dict(zip(head, (cell.text for cell in row.find_elements(By.TAG_NAME, "td")), strict=True))
            for row in browser.find_elements(By.CSS_SELECTOR, "tbody tr")
        ]
        browser.get(address)
        card = wait.until(lambda page: page.find_elements(By.XPATH, "//*[contains(text(), 'Best Trial (number=')]"))
        assert card[0].text == f"Best Trial (number={found.best.trial})"
    assert [int(row["Number"]) for row in rows] == [trial.number for trial in found.trials]
    order = found.ranking.order
    for row, trial in zip(rows, found.trials, strict=True):
        assert row["Param candidate"] == trial.spec.candidate
        cost = float(row["UserAttribute cost"])
        assert 0 < cost < trial.cost if trial.on_all_labels else cost == pytest.approx(trial.cost, rel=1e-3)
        assert 1 <= int(row["UserAttribute predicted rank"]) <= len(order)
        assert 0 <= float(row["UserAttribute P(best)"]) <= 1
    assert all(0 < float(row["UserAttribute forecast"]) <= 1 for row in rows[1:])  # the floor has none
