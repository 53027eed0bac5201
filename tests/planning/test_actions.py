"""What each trial is worth: choosing among many labels, means of fits among few."""

from dataclasses import replace

import pytest

from helpers.planning_world import N, plan, tried
from vlmsel_auto.planning.actions import Action, Actions
from vlmsel_auto.planning.plan import Plan
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.planning.trials import History, Left, Tried
from vlmsel_auto.records import TrialOrigin
from vlmsel_auto.tuning.methods import FINETUNE

MADE = plan(folds=5, validation_images=6, members=5)
HEADS = [tried(f"m{place}", 0.6, "probe", soft=0.6, images=30, seconds=1.0) for place in range(N)]
NAMES = [f"m{place}" for place in range(N)]


def tower(name: str, value: float, *, fold: int) -> Tried:
    point = dict.fromkeys(FINETUNE.settings, 0.5)
    return tried(name, value, soft=value, fold=fold, images=6, point=point, seconds=10.0)


def of(made: Plan, history: History, *, left: Left = Left()) -> list[Action]:  # noqa: B008 - frozen
    return Actions(made, history, left=left).of(NAMES)


def further(made: Plan, history: History, name: str, *, left: Left = Left()) -> Action | None:  # noqa: B008 - frozen
    found = [each for each in of(made, history, left=left) if each.candidate == name and "another fold" in each.why]
    assert len(found) <= 1
    return found[0] if found else None


def first(made: Plan, history: History, name: str) -> Action:
    (found,) = (each for each in of(made, history) if each.candidate == name and each.origin is TrialOrigin.PLANNED)
    return found


def test_every_candidate_has_a_first_trial_of_each_method_and_a_head_no_second() -> None:
    found = of(MADE, HEADS[:2])
    assert [(each.candidate, each.method.name) for each in found] == [
        (name, method.name)
        for place, name in enumerate(NAMES)
        for method in MADE.methods
        if place > 1 or method is FINETUNE
    ]


def test_with_each_member_the_next_is_worth_less_and_beyond_the_ensemble_nothing_but_choice() -> None:
    towers = [tower(f"m{place}", 0.6, fold=place) for place in range(3)]
    gains = [first(MADE, [*HEADS, *towers[:count]], "m3").gain for count in range(4)]
    assert gains[0] > gains[1] > gains[2] > gains[3] > 0
    full = first(replace(MADE, members=3), [*HEADS, *towers], "m3").gain
    alone = first(replace(MADE, members=1), [*HEADS, *towers], "m3").gain
    assert full == alone < gains[3]


def test_a_worse_member_is_worth_less() -> None:
    history = [*HEADS, tower("m0", 0.9, fold=0), tower("m1", 0.9, fold=1)]
    near, low = first(MADE, history, "m2"), first(MADE, history, "m7")
    assert near.gain > low.gain


@pytest.mark.parametrize(("images", "settings_win"), [(6, False), (4_000, True)])
def test_few_labels_ask_for_fits_and_many_for_settings(images: int, settings_win: bool) -> None:  # noqa: FBT001 - a case
    made = replace(MADE, validation_images=images)
    history = [*HEADS, *(replace(tower("m0", 0.9, fold=fold), images=images) for fold in range(4))]
    others = [each for each in of(made, history) if each.why == "near the best point"]
    (settings,) = (each.gain for each in others)
    again = further(made, history, "m0")
    assert (settings > again.gain) == settings_win
    if not settings_win:
        assert settings == 0.0  # below what a choice must promise


def test_each_fit_of_a_tower_promises_less_than_the_one_before_and_a_leader_more_than_a_member() -> None:
    fits = [tower("m0", 0.9, fold=fold) for fold in range(4)]
    gains = []
    for count in (1, 2, 3):
        found = further(MADE, [*HEADS, *fits[:count], tower("m1", 0.3, fold=4)], "m0")
        assert found.fold == count
        assert found.point == fits[0].point
        gains.append(found.gain)
    assert gains[0] > gains[1] > gains[2]
    member = further(MADE, [*HEADS, fits[0], tower("m1", 0.3, fold=4)], "m1")
    assert member.gain < gains[0]


def test_there_is_no_further_fit() -> None:
    every = [*HEADS, *(tower("m0", 0.9, fold=fold) for fold in range(5))]
    assert further(MADE, every, "m0") is None  # on all parts
    assert further(MADE, every, "m2") is None  # no tower
    one = [*HEADS, tower("m0", 0.9, fold=0)]
    whole = [*HEADS, replace(tower("m0", 0.9, fold=0), fold=None)]
    assert further(replace(MADE, folds=1), whole, "m0") is None  # the user's own images decide
    assert further(MADE, one, "m0", left=Left(seconds=5.0)) is None  # with fewer epochs it were another
    assert further(MADE, one, "m0", left=Left(seconds=50.0)) is not None


def test_other_settings_must_promise_more_than_the_least_gain() -> None:
    free, made = (plan(policy=replace(POLICY, least_gain=least)) for least in (0.0, POLICY.least_gain))
    history = [*HEADS, tried("m0", 0.9, seconds=10.0)]
    (before,), (after,) = ([a for a in of(each, history) if a.why == "near the best point"] for each in (free, made))
    assert before.gain > POLICY.least_gain
    assert after.gain == pytest.approx(before.gain - POLICY.least_gain)
