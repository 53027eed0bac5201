"""A whole search on workers, and the engines that a search may ask for."""

import os
from pathlib import Path

import psutil
import pytest

from helpers.drawings import draw_task
from helpers.engine_world import as_completed
from vlmsel_auto.engines.engine import Done
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.engines.local import LocalEngine
from vlmsel_auto.errors import InputError
from vlmsel_auto.events import Event, StageProgress
from vlmsel_auto.pipeline.search import search
from vlmsel_auto.pipeline.workers import open_engine, open_meanwhile
from vlmsel_auto.records import Budget

NAMES = ("EffNet-Mi-64.all-m", "RN-Mi-64.glyph-s")


def test_the_engine_is_what_was_asked_for() -> None:
    with open_engine(workers=None, ray=None, device="cpu") as alone:
        assert isinstance(alone, InProcess)
    with open_engine(workers=3, ray=None, device="cpu") as local:
        assert isinstance(local, LocalEngine)
        assert local.slots == 3
        assert local.threads == max(1, (os.cpu_count() or 1) // 3)


def test_workers_get_their_own_gpu_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with open_engine(workers=3, ray=None, device="cuda") as engine:
        assert isinstance(engine, LocalEngine)
        assert [each["CUDA_VISIBLE_DEVICES"] for each in engine.environments] == ["3", "5", "3"]


@pytest.mark.slow
def test_workers_warm_up_while_other_work_is_done() -> None:
    done, engine = open_meanwhile(lambda: 7, workers=1, ray=None, device="cpu")  # of Ray: tests/study/test_dispatch.py
    with engine:
        assert done == 7
        assert [type(each) for each in as_completed(engine)] == [Done]


def test_work_that_fails_closes_the_engine() -> None:
    def failing() -> int:
        raise InputError("no such folder, but got 7")

    with pytest.raises(InputError, match="but got 7"):
        open_meanwhile(failing, workers=1, ray=None, device="cpu")
    assert not [each for each in psutil.Process().children(recursive=True) if "popen_loky" in " ".join(each.cmdline())]


def test_a_search_on_two_workers_screenings_tunes_and_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMSEL_CACHE", str(tmp_path / "cache"))
    heard: list[Event] = []
    asked = {"candidates": NAMES, "budget": Budget(trials=2), "shots": 4, "method": "probe", "learn": False}
    asked["workdir"] = tmp_path / "work"
    result = search(draw_task(tmp_path / "shapes", train=6, test=3), **asked, workers=2, sink=heard.append)
    assert result.best.model_dir is not None
    assert {each.spec.candidate for each in result.trials} == set(NAMES)
    assert [each.done for each in heard if isinstance(each, StageProgress) and each.stage == "screenings"] == [1, 2]
    assert [each.done for each in heard if isinstance(each, StageProgress) and each.stage == "profiles"] == [1, 2]
    assert "--workers 2" in (result.report_dir / "report.json").read_text()
    again = search(tmp_path / "shapes", **asked)
    assert again.trials == result.trials  # the same work directory without workers
