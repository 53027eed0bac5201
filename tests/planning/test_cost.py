from dataclasses import replace

import pytest

from helpers.planning_world import plan, tried
from vlmsel_auto.planning.cost import budget_share, in_time, trial_seconds
from vlmsel_auto.planning.trials import Left


def test_prices_follow_measured_speed_then_operations() -> None:
    made = plan()
    cost = made.costs
    history = [tried("m0", 0.5, "probe"), tried("m1", 0.6, seconds=30.0, share=0.5)]
    seconds = trial_seconds(made, history)
    assert seconds["m1", "finetune"] == 60.0  # half of its epochs took 30
    assert seconds["m3", "finetune"] == pytest.approx(60.0 * (cost["m3"] / cost["m1"]) ** 0.5)
    assert seconds["m3", "probe"] == 1.0
    assert trial_seconds(made, history[:1])["m3", "finetune"] == pytest.approx(20.0 * cost["m3"] ** 0.5)
    probed = [*history, tried("m3", 0.5, "probe", seconds=3.0), tried("m3", 0.5, "probe", seconds=0.1)]
    assert trial_seconds(made, probed)["m3", "probe"] == 0.1  # its features are there
    pace = 3.0 / 2.0  # its first probe against the median first probe
    assert trial_seconds(made, probed)["m3", "finetune"] == pytest.approx(60.0 / cost["m1"] ** 0.5 * pace)
    assert budget_share(10.0, left=Left(seconds=100.0, trials=4)) == pytest.approx(0.1 + 0.25)
    assert budget_share(10.0, left=Left()) == 10.0
    assert budget_share(10.0, left=Left(seconds=100.0, workers=2)) == pytest.approx(0.05)


def test_a_trial_that_hardly_began_says_nothing_of_speed() -> None:
    assert trial_seconds(plan(), [tried("m0", 0.6, seconds=1.0, share=0.01)]) == trial_seconds(plan(), [])


def test_the_first_trial_of_a_candidate_that_nobody_loaded_pays_for_loading() -> None:
    made = plan()
    fresh = replace(made, loading={"m3": 90.0})
    plain, dear = trial_seconds(made, []), trial_seconds(fresh, [])
    assert dear["m3", "probe"] == pytest.approx(plain["m3", "probe"] + 90.0)
    assert dear["m1", "probe"] == plain["m1", "probe"]
    history = [tried("m3", 0.5, "probe")]
    assert trial_seconds(fresh, history) == trial_seconds(made, history)


def test_seconds_are_those_of_a_default_schedule() -> None:
    long = tried("m0", 0.6, seconds=90.0, point={"epochs": 1.0})  # three times the epochs
    assert trial_seconds(plan(), [long])["m0", "finetune"] == pytest.approx(30.0)


def test_a_schedule_is_shortened_as_far_as_the_space_allows() -> None:
    assert in_time({}, 40.0, left=Left()) == ({}, 1.0)
    assert in_time({}, 40.0, left=Left(seconds=60.0)) == ({}, 1.0)
    point, share = in_time({}, 40.0, left=Left(seconds=20.0))
    assert share == 0.5
    assert 9 ** (point["epochs"] - 0.5) == pytest.approx(0.5)
    assert in_time({}, 40.0, left=Left(seconds=10.0)) == ({}, 0.25)  # less than a third
