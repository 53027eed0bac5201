"""The dashboard of searches: that nothing can be changed there, and that a browser reads it."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.browser import browser  # noqa: F401 - a fixture
from helpers.dashboard_world import begun
from helpers.drawings import draw_task
from helpers.short_trials import short_trials  # noqa: F401 - a fixture
from vlmsel_auto.errors import InputError
from vlmsel_auto.records import Budget
from vlmsel_auto.study.dashboard import HOST, serve
from vlmsel_auto.study.optuna_study import JOURNAL
from vlmsel_auto.study.study_view import open_view


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return begun(tmp_path)


@pytest.fixture
def address(workdir: Path) -> Iterator[str]:
    pytest.importorskip("optuna_dashboard")
    with served(workdir) as found:
        yield found


class served:  # noqa: N801 - a context manager
    """The command, in a process of its own that says one line."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "vlmsel_auto", "dashboard", *map(str, words), "--port", "0"]
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


def test_a_port_that_is_taken_is_refused(workdir: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    view = open_view(workdir)
    with pytest.raises(InputError, match="needs a free port, choose another --port, but got"):
        serve(view, port=0, ready=lambda address: serve(view, port=int(re.search(r":(\d+)/", address)[1]),
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
        assert cost == pytest.approx(trial.cost, rel=1e-3)
        assert 1 <= int(row["UserAttribute predicted rank"]) <= len(order)
        assert 0 <= float(row["UserAttribute P(best)"]) <= 1
    assert all(0 < float(row["UserAttribute forecast"]) <= 1 for row in rows[1:])  # the zero-shot baseline has none
