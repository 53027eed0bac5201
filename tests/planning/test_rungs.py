"""Whether a trial goes on: far behind it does not, and few images are not trusted."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.planning_world import plan, tried
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.planning.rungs import goes_on_at
from vlmsel_auto.records import TrialOrigin

PEERS = [tried(f"m{place}", 0.8, curve=Curve(values=(0.8,) * 4, epochs=4)) for place in (1, 2)]


def trial(**changes: object) -> NextTrial:
    made = NextTrial(candidate="m0", method="finetune", point=None, origin=TrialOrigin.SAMPLED, why="")
    return replace(made, **changes)


def least(images: int | None) -> float:
    """The lowest metric that goes on."""
    made = replace(plan(), validation_images=images)
    return next(v / 200 for v in range(201) if goes_on_at(made, PEERS, trial(), rung=2, validation=v / 200))


def test_the_fewer_images_the_further_behind_a_trial_may_be() -> None:
    assert least(None) == 0.8
    assert least(400) == pytest.approx(0.8 - np.sqrt(2 * 0.6 * 0.8 * 0.2 / 403), abs=0.01)
    assert 0.6 < least(20) < least(60) < least(400) < least(None)


def test_first_trials_have_slack_and_the_first_has_no_peers() -> None:
    made = plan()
    assert not goes_on_at(made, PEERS, trial(), rung=1, validation=0.77)
    assert goes_on_at(made, PEERS, trial(origin=TrialOrigin.PLANNED), rung=1, validation=0.77)
    assert goes_on_at(made, [], trial(), rung=1, validation=0.0)


def test_a_trial_is_not_compared_with_the_one_that_it_continues() -> None:
    better = [replace(PEERS[0], number=7)]
    assert not goes_on_at(plan(), better, trial(), rung=2, validation=0.5)
    assert goes_on_at(plan(), better, trial(continues=7), rung=2, validation=0.5)


def test_every_fit_that_leaves_out_a_fold_goes_on() -> None:
    assert not goes_on_at(plan(), PEERS, trial(), rung=2, validation=0.1)
    assert goes_on_at(plan(folds=5), PEERS, trial(), rung=2, validation=0.1)
