"""What is planned while trials run."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.planning_world import plan, tried
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.next_trial import NextTrial, next_trial
from vlmsel_auto.planning.running_trials import Running, goes_on_at, imagine
from vlmsel_auto.planning.trial_evidence import TrialEvidence
from vlmsel_auto.planning.trials import Left
from vlmsel_auto.records import TrialOrigin, TrialState


def begun(name: str, method: str = "finetune", number: int = 900, **other: object) -> Running:
    trial = NextTrial(candidate=name, method=method, point=None, origin=TrialOrigin.PLANNED, why="")
    return Running(number=number, trial=trial, **other)


PROBED = [tried(f"m{number}", 0.7 - number / 50, "probe") for number in range(3)]


def test_with_nothing_running_the_history_is_as_it_was():
    assert imagine(plan(), PROBED, []) == PROBED


def test_what_is_imagined_moves_means_little_and_makes_surer():
    before = TrialEvidence(plan(), PROBED).posterior
    after = TrialEvidence(plan(), imagine(plan(), PROBED, [begun("m1")])).posterior
    np.testing.assert_allclose(after.mean, before.mean, atol=5e-3)
    assert after.sd[1, -1] < 0.5 * before.sd[1, -1]
    assert (after.sd <= before.sd + 1e-3).all()


def test_a_curve_says_where_a_running_trial_will_end():
    whole = tried("m0", 0.8, curve=Curve(values=(0.5, 0.6, 0.7, 0.8), epochs=4))
    low, high = (
        imagine(plan(), [*PROBED, whole], [begun("m1", curve=Curve(values=(value,), epochs=4))])[-1].validation
        for value in (0.3, 0.6)
    )
    assert low is not None
    assert high == pytest.approx(low + 0.3)
    assert 0.6 < high < 0.95


def test_workers_are_given_different_trials_until_nothing_is_left_to_choose():
    made, running = plan(top_k=5, folds=5, members=5, validation_images=6), []
    for number in range(6):
        step = next_trial(made, imagine(made, PROBED, running), left=Left(seconds=600.0, workers=6))
        assert step is not None
        running.append(Running(number=900 + number, trial=step))
    trials = [(each.trial.candidate, each.trial.method, each.trial.fold) for each in running]
    assert len(set(trials)) == 6
    assert len({each.trial.candidate for each in running}) > 2


def test_the_zero_shot_baseline_runs_once_and_nobody_waits_for_it():
    made = plan()
    running = [begun("m0", "zero_shot")]
    history = imagine(made, [], running)
    assert history[0].validation is None
    assert history[0].state is TrialState.COMPLETE
    step = next_trial(made, history, left=Left(trials=9))
    assert step.method == "probe"


def test_an_interrupted_trial_that_goes_on_counts_once():
    interrupted = tried("m1", None, state=TrialState.PRUNED, curve=Curve(values=(0.6, 0.7), epochs=4), number=5)
    trial = NextTrial(candidate="m1", method="finetune", point=None, origin=TrialOrigin.PLANNED, why="", continues=5)
    history = imagine(plan(), [*PROBED, interrupted], [Running(number=900, trial=trial)])
    assert [each.number for each in history if each.candidate == "m1"][-1] == 900
    assert interrupted not in history


PEERS = [tried(f"m{place}", 0.8, curve=Curve(values=(0.8,) * 4, epochs=4)) for place in (1, 2)]


def chosen(**changes: object) -> NextTrial:
    made = NextTrial(candidate="m0", method="finetune", point=None, origin=TrialOrigin.SAMPLED, why="")
    return replace(made, **changes)


def least(images: int | None) -> float:
    """The lowest metric that goes on."""
    made = plan(validation_images=images)
    return next(v / 1000 for v in range(1001) if goes_on_at(made, PEERS, chosen(), rung=2, validation=v / 1000))


def test_the_fewer_images_the_further_behind_a_trial_may_be() -> None:
    assert least(None) == 0.8
    assert least(400) == pytest.approx(0.8 - np.sqrt(2 * 0.6 * 0.8 * 0.2 / 403), abs=0.003)
    assert 0.6 < least(20) < least(60) < least(400) < least(None)


def test_first_trials_have_slack_and_the_first_has_no_peers() -> None:
    made = plan()
    assert not goes_on_at(made, PEERS, chosen(), rung=1, validation=0.77)
    assert goes_on_at(made, PEERS, chosen(origin=TrialOrigin.PLANNED), rung=1, validation=0.77)
    assert goes_on_at(made, [], chosen(), rung=1, validation=0.0)


def test_a_trial_is_not_compared_with_the_one_that_it_continues() -> None:
    better = [replace(PEERS[0], number=7)]
    assert not goes_on_at(plan(), better, chosen(), rung=2, validation=0.5)
    assert goes_on_at(plan(), better, chosen(continues=7), rung=2, validation=0.5)


def test_every_fit_that_leaves_out_a_fold_goes_on() -> None:
    assert not goes_on_at(plan(), PEERS, chosen(), rung=2, validation=0.1)
    assert goes_on_at(plan(folds=5), PEERS, chosen(), rung=2, validation=0.1)
