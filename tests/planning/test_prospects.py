from dataclasses import replace

import numpy as np
import pytest

from helpers.planning_world import N, plan, tried
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.history import observe
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.planning.prospects import Prospect, prospects
from vlmsel_auto.planning.tried import History, Left, Tried
from vlmsel_auto.records import TrialState
from vlmsel_auto.tuning.methods import FINETUNE

MADE = replace(plan(audits=0, folds=5), validation_images=30)
HEADS = [tried(f"m{place}", 0.6, "probe", soft=0.6, images=30, seconds=1.0) for place in range(N)]


def tower(name: str, value: float, *, fold: int, images: int = 6) -> Tried:
    point = dict.fromkeys(FINETUNE.settings, 0.5)
    return tried(name, value, soft=value, fold=fold, images=images, point=point, seconds=10.0)


def of(made: Plan, history: History, *, left: Left = Left()) -> list[Prospect]:  # noqa: B008 - frozen
    names = [f"m{place}" for place in range(N)]
    return prospects(made, history, names=names, now=observe(made, history), left=left)


def again(made: Plan, history: History, name: str, *, left: Left = Left()) -> Prospect | None:  # noqa: B008 - frozen
    found = [each for each in of(made, history, left=left) if each.again is not None and each.candidate == name]
    assert len(found) <= 1
    return found[0] if found else None


def test_every_candidate_has_a_new_trial_of_each_method_but_a_second_of_a_head() -> None:
    found = of(MADE, HEADS[:2])
    assert [(each.candidate, each.method.name) for each in found] == [
        (f"m{place}", method.name) for place in range(N) for method in MADE.methods if place > 1 or method is FINETUNE
    ]
    assert all(each.again is None and each.paused is None for each in found)


HALF = tried(
    "m1",
    0.7,
    state=TrialState.PRUNED,
    curve=Curve(values=(0.6, 0.7), epochs=4),
    resumable=True,
    seconds=10.0,
    share=0.5,
)


def going_on(left: Left) -> Prospect:
    (found,) = (each for each in of(MADE, [*HEADS, HALF], left=left) if each.paused is not None)
    return found


def test_a_paused_trial_is_a_prospect_for_what_is_left_of_it() -> None:
    found = going_on(Left())
    assert found.paused == HALF
    assert found.seconds == pytest.approx(10.0)  # the other half
    assert found.fits == 1.0


def test_a_paused_trial_that_there_is_no_time_for_promises_as_little_as_a_new_one() -> None:
    whole = going_on(Left())
    for seconds, fits in ((20.0, 1.0), (10.0, 1.0), (5.0, 0.5), (2.5, 0.25)):
        found = going_on(Left(seconds=seconds))
        assert (found.fits, found.seconds) == (pytest.approx(fits), pytest.approx(10.0 * fits))
        assert found.gain == whole.gain
    assert going_on(Left(seconds=2.0)).gain == pytest.approx(POLICY.hopeless * whole.gain)


def test_the_closer_two_towers_are_the_more_a_further_part_is_worth() -> None:
    gains = []
    for behind in (0.0, 0.1, 0.3):
        found = again(MADE, [*HEADS, tower("m0", 0.9, fold=0), tower("m1", 0.9 - behind, fold=1)], "m1")
        assert found is not None
        gains.append(found.gain)
    assert gains[0] > gains[1] > gains[2] > 0


def test_gain_and_cost_are_those_of_as_many_parts_as_tell_most_for_their_time() -> None:
    history = [*HEADS, tower("m0", 0.9, fold=0), tower("m1", 0.88, fold=1)]
    found = again(MADE, history, "m0")
    assert found is not None
    parts = found.cost / next(each.cost for each in of(MADE, history) if each.candidate == "m0" and each.again is None)
    assert parts == pytest.approx(round(parts))
    assert 1 <= parts <= 4
    assert found.seconds == pytest.approx(parts * 10.0)
    twice = again(replace(MADE, policy=replace(POLICY, measuring=2 * POLICY.measuring)), history, "m0")
    assert twice is not None
    assert twice.gain == pytest.approx(2 * found.gain)


def test_there_is_nothing_to_score_again() -> None:
    leaders = [tower("m0", 0.9, fold=0), tower("m1", 0.9, fold=1)]
    every = [*HEADS, *(tower("m0", 0.9, fold=fold) for fold in range(5)), leaders[1]]
    assert again(MADE, every, "m0") is None  # on all parts
    assert again(MADE, [*HEADS, *leaders], "m2") is None  # no tower
    assert again(replace(MADE, folds=1), [*HEADS, *(replace(each, fold=None) for each in leaders)], "m0") is None
    assert again(MADE, leaders[:1], "m0") is None  # no rival
    assert again(MADE, [*HEADS, *leaders], "m0", left=Left(seconds=5.0)) is None  # with fewer epochs it were another
    assert again(MADE, [*HEADS, *leaders], "m0", left=Left(seconds=50.0)) is not None


def test_a_new_trial_must_promise_the_least_gain_and_one_that_tells_apart_its_price_alone() -> None:
    new = Prospect(candidate="m0", method=FINETUNE, tries=1, gain=POLICY.least_gain, cost=1.0, seconds=60.0)
    assert not new.is_enough(POLICY)
    assert replace(new, gain=POLICY.bar(60.0)).is_enough(POLICY)
    telling = replace(new, gain=POLICY.price, again=tower("m0", 0.9, fold=0))
    assert telling.is_enough(POLICY)
    assert not replace(telling, gain=np.nextafter(POLICY.price, 0)).is_enough(POLICY)
