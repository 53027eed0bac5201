"""Opening a study: what is frozen stays, a damaged or lost journal is made whole again."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from helpers.opened_study import opened
from helpers.tuning_world import digits
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.study.opening import _knows_more
from vlmsel_auto.study.optuna_study import EntryState
from vlmsel_auto.tuning.methods import PROBE


def test_a_lost_journal_has_a_place_for_every_result(tmp_path: Path) -> None:
    with opened(tmp_path, done=(0, 2)) as study:
        assert [each.state for each in study.entries()] == [EntryState.RUNNING] * 3


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"names": ("a", "b")}, "candidates"),
        ({"methods": (PROBE,)}, "methods"),
        ({"task": replace(digits(), digest="other")}, "images, labels or split"),
    ],
    ids=["candidates", "methods", "task"],
)
def test_what_is_frozen_stays(tmp_path: Path, changes: dict[str, object], what: str) -> None:
    with opened(tmp_path):
        pass
    with pytest.raises(WorkdirError, match=f"belongs to a search with other {what}"), opened(tmp_path, **changes):
        pass


def trial(state: OptunaState, value: float | None = None) -> FrozenTrial:
    return create_trial(state=state, value=value, params={}, distributions={})


DONE, OTHER = trial(OptunaState.COMPLETE, 0.5), trial(OptunaState.COMPLETE, 0.6)
RUNS, WAITS = trial(OptunaState.RUNNING), trial(OptunaState.WAITING)


def numbered(*trials: FrozenTrial) -> list[FrozenTrial]:
    made = [copy.copy(each) for each in trials]
    for number, each in enumerate(made):
        each.number = number
    return made


@pytest.mark.parametrize(
    ("theirs", "ours", "more"),
    [
        ((), (), False),
        ((DONE,), (), True),
        ((), (DONE,), False),
        ((DONE, RUNS), (DONE, RUNS), False),
        ((DONE, DONE), (DONE, RUNS), True),
        ((DONE, RUNS), (DONE, DONE, WAITS), False),
        ((DONE,), (DONE, WAITS), False),
        ((DONE, DONE, DONE), (DONE, RUNS), True),
    ],
)
def test_who_knows_more(
    theirs: tuple[FrozenTrial, ...], ours: tuple[FrozenTrial, ...], more: object, tmp_path: Path
) -> None:
    assert _knows_more(numbered(*theirs), numbered(*ours), workdir=tmp_path) is more


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [((DONE,), (OTHER,)), ((DONE, DONE, RUNS), (DONE, RUNS, DONE)), ((DONE, RUNS, DONE), (DONE, DONE))],
)
def test_ways_that_parted_are_not_mixed(
    theirs: tuple[FrozenTrial, ...], ours: tuple[FrozenTrial, ...], tmp_path: Path
) -> None:
    with pytest.raises(WorkdirError, match="went different ways"):
        _knows_more(numbered(*theirs), numbered(*ours), workdir=tmp_path)
