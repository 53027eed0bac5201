"""Searches of several workers on recorded trials, in a world that is made by hand."""

import copy
from collections.abc import Callable
from types import ModuleType

import pytest

from vlmsel_auto.records import Basis, Candidate, ImageView, Interval, RankedCandidate, Ranking

NAMES = ("good", "fair", "poor")


@pytest.fixture
def modules(load_script: Callable[[str], ModuleType]) -> dict[str, ModuleType]:
    found = {name: load_script(f"planning.workers_{name}") for name in ("worlds", "replay")}
    return found | {"bench": load_script("planning.workers")}


@pytest.fixture
def world(modules: dict[str, ModuleType]) -> object:
    """Three models with six runs of four epochs each, ten seconds an epoch; one run is within a point of the best."""

    def run(model: int, number: int) -> object:
        last = 0.6 + 0.1 * (2 - model) + 0.005 * number + (0.05 if (model, number) == (0, 5) else 0.0)
        values = tuple(last - 0.02 * left for left in (3, 2, 1, 0))
        return modules["worlds"].Run(metrics=values, seconds=(10.0,) * 4, truth=last)

    lines = [
        RankedCandidate(candidate=name, score=-float(place), sd=0.7, prior=None, evidence=None, p_best=0.0, p_top5=0.0,
                        rank_interval=Interval(low=1, high=3), basis=Basis.LIBRARY)
        for place, name in enumerate(NAMES)
    ]  # fmt: skip
    return modules["worlds"].QuickTune(
        runs={name: [run(model, number) for number in range(6)] for model, name in enumerate(NAMES)},
        ranking=Ranking(task="by hand", ranked=tuple(lines)), seed=3,
        candidates=[Candidate(id=name, source="open_clip", arch=name, tag="", view=ImageView(size=64), family=name)
                    for name in NAMES],
    )  # fmt: skip


def test_workers_find_what_one_finds_and_no_run_is_taken_twice(modules: dict[str, ModuleType], world: object) -> None:
    assert world.least == 40.0
    replay = modules["replay"].replay
    found = {w: replay(copy.deepcopy(world), workers=w, seed=1, others=(4, 18)) for w in (1, 4, 18)}
    assert all(each.reached for each in found.values())
    assert found[1].busy == pytest.approx(1.0)
    assert found[1].trials > 3
    assert world.least <= found[18].seconds <= found[4].seconds < found[1].seconds
    assert world.least <= found[1].queue[18] <= found[1].queue[4] <= found[1].seconds
    assert all(0 < each.busy <= 1 and each.regret < 1.0 for each in found.values())
    assert replay(copy.deepcopy(world), workers=4, seed=1, others=(4, 18)) == found[4]


def test_the_table_says_how_much_faster_and_at_most(
    modules: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"task": task, "seed": 0, "workers": w, "seconds": 64.0 / speed, "reached": True, "busy": 1.0, "regret": 0.5,
         "trials": 9, "least": 2.0, "queue": {"4": 32.0, "16": 16.0, "64": 8.0}}
        for task in ("a", "b")
        for w, speed in ((1, 1), (4, 2), (16, 8), (64, 16))
    ]  # fmt: skip
    lines = modules["bench"].speed([*rows, {**rows[0], "task": "cut off"}], name="by hand")
    assert [each["times_faster"] for each in lines] == [1.0, 2.0, 8.0, 16.0]
    assert [each["in_order"] for each in lines] == [1.0, 2.0, 4.0, 8.0]
    assert [each["at_most"] for each in lines] == [1.0, 4.0, 16.0, 32.0]
    assert lines[1]["interval"] == (2.0, 2.0)
    assert "2 tasks, 2 searches" in capsys.readouterr().out
