"""The study by itself: what is queued comes back, trials are closed by their state."""

from pathlib import Path

import pytest

from helpers.opened_study import opened, planned, result
from helpers.tuning_world import spec
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.records import TrialOrigin, TrialState
from vlmsel_auto.study.optuna_study import TrialForecast
from vlmsel_auto.tuning.checkpoints import result_from_json
from vlmsel_auto.tuning.methods import FINETUNE, PROBE, ZERO_SHOT


@pytest.mark.parametrize(
    "wanted",
    [
        planned(),
        planned(continues=4),
        planned(method=PROBE.name, point={}),
        planned(fold=3),
        planned(method=ZERO_SHOT.name, point={}, origin=TrialOrigin.ZERO_SHOT),
    ],
    ids=["fine-tuning", "continued", "probe", "fold", "zero-shot"],
)
def test_what_is_queued_comes_back(tmp_path: Path, wanted: NextTrial) -> None:
    with opened(tmp_path) as study:
        assert not study.waiting()
        study.queue(wanted, attempt=2)
        assert study.waiting()
        assert study.entries()[0].planned == wanted
        taken = study.take()
        assert (taken.number, taken.attempt, taken.planned) == (0, 2, wanted)
        assert not study.waiting()


def test_what_was_believed_and_what_came_out_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        study.queue(planned(), prediction=TrialForecast(rank=2, p_best=0.25, forecast=0.7, sd=0.1))
        study.take()
        study.close(result(0, cost=3.0))
    with opened(tmp_path) as study:
        attrs = study.study.trials[0].user_attrs
        assert attrs["prediction"] == {"rank": 2, "p_best": 0.25, "forecast": 0.7, "sd": 0.1}
        assert attrs["outcome"] == {"validation": 0.8, "cost": 3.0, **spec().settings, "epochs": spec().epochs}


def test_what_a_point_leaves_open_is_sampled(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        study.queue(planned(point=None))
        assert study.entries()[0].planned == planned(point=None)
        taken = study.take()
        assert set(taken.planned.point) == set(FINETUNE.settings)
        assert all(0 <= value <= 1 for value in taken.planned.point.values())


def test_what_a_point_does_not_name_is_at_its_default(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        study.queue(planned(point={"learning_rate": 0.1}))
        assert study.take().planned.point == {**dict.fromkeys(FINETUNE.settings, 0.5), "learning_rate": 0.1}


def test_trials_are_closed_by_their_state(tmp_path: Path) -> None:
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED]
    with opened(tmp_path) as study:
        for number, state in enumerate(states):
            study.queue(planned())
            assert study.take().number == number
            study.report(number, rung=1, value=0.5)
            study.close(result(number, state=state, validation=None if state is TrialState.FAILED else 0.8))
        study.queue(planned())
        study.take()
        study.fail(3)
    with opened(tmp_path) as study:
        assert [each.state.name for each in study.study.trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
        kept = [each.result for each in study.entries()]
        assert [result_from_json(each).state for each in kept[:3]] == states  # who lost the files finds them here
        assert kept[3] is None
        assert study.study.best_value == 0.8
