"""Two records of one study: who knows more, and ways that parted."""

import copy
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.study.comparing import check_same_search, knows_more


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
def test_whoknows_more(
    theirs: tuple[FrozenTrial, ...], ours: tuple[FrozenTrial, ...], more: object, tmp_path: Path
) -> None:
    assert knows_more(numbered(*theirs), numbered(*ours), workdir=tmp_path) is more


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [((DONE,), (OTHER,)), ((DONE, DONE, RUNS), (DONE, RUNS, DONE)), ((DONE, RUNS, DONE), (DONE, DONE))],
)
def test_ways_that_parted_are_not_mixed(
    theirs: tuple[FrozenTrial, ...], ours: tuple[FrozenTrial, ...], tmp_path: Path
) -> None:
    with pytest.raises(WorkdirError, match="went different ways"):
        knows_more(numbered(*theirs), numbered(*ours), workdir=tmp_path)


def test_what_a_study_does_not_say_is_no_difference() -> None:
    check_same_search({"task": "t", "methods": ["probe"]}, known={"task": "t"}, place="here")
    with pytest.raises(WorkdirError, match="here belongs to a search with other images, labels or split"):
        check_same_search({"task": "t"}, known={"task": "u"}, place="here")
