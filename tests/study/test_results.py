from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from helpers import opened_study
from helpers.opened_study import leave_state
from helpers.stored_results import saying
from helpers.tuning_world import runner, spec
from vlmsel_auto.records import TrialOrigin, TrialResult, TrialState
from vlmsel_auto.study.results import Results, other_folds, over_folds
from vlmsel_auto.tuning.checkpoints import drop_weights, has_weights, read_held_out, save_weights, size_of_weights
from vlmsel_auto.tuning.paused import has_paused

result = partial(
    opened_study.result, curve=(0.5, 0.8, 0.8), epochs_run=3, kept_epoch=2, soft_validation=0.6
)  # of a number, and whatever else changes


def results_of(path: Path, *results: TrialResult) -> Results:
    made = Results(workdir=path)
    for each in results:
        made.adopt(each)
    return made


def test_an_epoch_that_time_cut_short_costs_what_a_part_does(tmp_path: Path) -> None:
    made = results_of(tmp_path, result(0, spec=spec(epochs=3), seconds=10.0, out_of_time=True, fidelity=0.75))
    (seen,) = made.history(runner(tmp_path))
    assert (seen.share, len(seen.curve.values)) == (0.75, 3)


def test_soft_metrics_reach_the_plan_but_not_those_of_an_untrained_start(tmp_path: Path) -> None:
    made = results_of(tmp_path, result(0), result(1, kept_epoch=0), result(2, kept_epoch=None, soft_validation=None))
    history = made.history(runner(tmp_path))
    assert [(each.number, each.validation, each.soft) for each in history] == [
        (0, 0.8, 0.6),
        (1, 0.8, None),
        (2, 0.8, None),
    ]


def test_leaders_follow_what_is_expected_then_validation_then_the_last_epochs_then_the_earlier(tmp_path: Path) -> None:
    made = results_of(
        tmp_path,
        result(0, validation=0.9),
        result(1),
        result(2, curve=(0.5, 0.8, 0.9)),
        result(3, state=TrialState.PRUNED),
        result(4, state=TrialState.FAILED, validation=None),
        result(5),
    )
    assert [each.number for each in made.leaders({})] == [0, 2, 1, 5]
    assert [each.number for each in made.leaders({0: 0.6, 1: 0.7, 2: 0.65})] == [1, 2, 0, 5]


def test_who_has_no_weights_any_more_comes_last(tmp_path: Path) -> None:
    save_weights(tmp_path, 1, saying())
    made = results_of(tmp_path, result(0), result(1))
    assert [each.number for each in made.leaders({0: 0.9})] == [1, 0]
    drop_weights(tmp_path, 1)
    made.adopt(result(1))
    assert [each.number for each in made.leaders({0: 0.9})] == [0, 1]


def test_neither_the_zero_shot_baseline_nor_what_the_clock_cut_short_counts(tmp_path: Path) -> None:
    baseline = result(0, origin=TrialOrigin.ZERO_SHOT, spec=spec(method="zero_shot", epochs=0), curve=(), kept_epoch=0)
    late = result(2, state=TrialState.PRUNED, out_of_time=True)
    made = results_of(tmp_path, baseline, result(1), late, result(3, state=TrialState.PRUNED))
    assert [each.number for each in made.counted()] == [1, 3]
    assert [each.number for each in made.history(runner(tmp_path))] == [0, 1, 3]
    assert [each.number for each in made.leaders({1: 0.1})] == [1, 0]  # the zero-shot baseline has no expectation


def scored_on(number: int, fold: int, **changes: object) -> TrialResult:
    return result(number, spec=replace(spec(), settings={"learning_rate": 3e-4}, fold=fold), **changes)


def test_trials_of_the_same_settings_on_other_folds_belong_together() -> None:
    first, again = scored_on(1, 0), scored_on(2, 1)
    through_a_point = replace(again, number=3, spec=replace(again.spec, settings={"learning_rate": 3e-4 * (1 + 1e-12)}))
    apart = [
        scored_on(4, 0),
        scored_on(5, 1, state=TrialState.PRUNED),
        scored_on(9, 1, out_of_time=True),
        replace(again, number=6, spec=replace(again.spec, epochs=99)),
        replace(again, number=7, spec=replace(again.spec, settings={"learning_rate": 4e-4})),
        replace(again, number=8, spec=replace(again.spec, candidate="another")),
    ]
    every = [first, again, through_a_point, *apart]
    assert other_folds(first, every) == [again, through_a_point]
    assert other_folds(replace(first, out_of_time=True), every) == []


def test_validation_over_folds_is_the_mean_over_their_images() -> None:
    first = result(1, validation=0.9, validation_images=10)
    second = result(2, spec=replace(first.spec, fold=1), validation=0.6, validation_images=20)
    stranger = result(3, spec=replace(first.spec, fold=1, seed=9), validation=0.1, validation_images=20)
    told = over_folds(first, [first, second, stranger])
    assert told.validation == pytest.approx(0.7)
    assert told == replace(first, validation=told.validation, validation_images=30)
    assert over_folds(first, [first, stranger]) == first
    assert over_folds(first, [first, replace(second, state=TrialState.FAILED)]) == first
    assert over_folds(first, [first, replace(second, validation_images=None)]) == first


def keep_weights(path: Path, *numbers: int) -> None:
    """Weights of equal size, and what they say of two images."""
    for number in numbers:
        save_weights(path, number, saying(said_by(number)))


def said_by(number: int) -> np.ndarray:
    return np.arange(4, dtype=np.float32).reshape(2, 2) + number


@pytest.mark.parametrize(("room", "kept"), [(6, {1, 2}), (5, {1}), (4, set()), (0, set())])
def test_further_folds_keep_their_weights_where_there_is_room_and_what_they_say_anyway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, kept: set[int]
) -> None:
    keep_weights(tmp_path, *range(7))
    monkeypatch.setattr("vlmsel_auto.study.results._MOST_BYTES", room * size_of_weights(tmp_path, 0))
    leaders = [result(number, spec=spec(candidate=f"c{number}")) for number in (3, 4, 5)]
    late = scored_on(6, 3, out_of_time=True)  # no whole fit
    made = results_of(tmp_path, scored_on(0, 0), scored_on(1, 1), scored_on(2, 2, validation=0.1), late, *leaders)
    for run in (made, results_of(tmp_path, *made.all())):  # the second as a later run finds it
        run.tidy({0: 0.9, 3: 0.8, 4: 0.7, 5: 0.6})  # the first of the same settings speaks for all
        assert {number for number in range(7) if has_weights(tmp_path, number)} == {0, 3, 4, 5} | kept
        found = {each.number: read_held_out(tmp_path, each) for each in made.all()}
        assert {number for number, said in found.items() if said is not None} == {1, 2} - kept
        assert all(np.array_equal(found[number], said_by(number)) for number in {1, 2} - kept)


@pytest.mark.parametrize(
    ("more", "without", "first"),
    [
        ({}, (), 1),
        ({}, (1,), 2),  # with the other fit of its settings, whose weights are gone
        ({1: -0.01, 2: -0.01}, (), 0),  # of single fits the longest is no surer
        ({0: 0.01}, (), 0),  # no tie
    ],
)
def test_of_trials_that_are_not_told_apart_the_longest_trained_comes_first(
    tmp_path: Path, more: dict[int, float], without: tuple[int, ...], first: int
) -> None:
    keep_weights(tmp_path, *{0, 1, 2, 3}.difference(without))
    made = results_of(
        tmp_path,
        result(0, spec=spec(candidate="a")),
        scored_on(1, 0, epochs_run=5),
        scored_on(2, 1, epochs_run=5),
        result(3, spec=spec(candidate="b"), epochs_run=9),
    )
    expected = {number: 0.8 - 0.001 * number + more.get(number, 0.0) for number in range(4)}
    assert made.leaders(expected)[0].number == first
    assert made.members(expected)[0].number == first
    assert sorted(each.number for each in made.leaders(expected)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("folds", "first"), [((0.8, 0.8), 1), ((), 0)], ids=["heads cross-validated", "one split"])
def test_of_trials_that_are_not_told_apart_a_head_comes_before_a_tower_that_misses_labels(
    tmp_path: Path, folds: tuple[float, ...], first: int
) -> None:
    keep_weights(tmp_path, 0, 1)
    head = result(1, spec=spec(candidate="a", method="probe"), fold_validation=folds)
    made = results_of(tmp_path, result(0, spec=spec(candidate="b")), head)
    assert [each.number for each in made.leaders({0: 0.8, 1: 0.799})] == [first, 1 - first]


def interrupt(made: Results, number: int, **changes: object) -> None:
    leave_state(made.workdir, number)
    made.keep(result(number, state=TrialState.PRUNED, curve=(0.5,), epochs_run=1, out_of_time=True, **changes))


@pytest.mark.parametrize(
    ("ended", "goes_on"),
    [
        ({"state": TrialState.PRUNED, "out_of_time": True}, [0]),
        ({"state": TrialState.PRUNED}, []),
        ({"state": TrialState.FAILED, "validation": None}, []),
        ({"state": TrialState.COMPLETE, "out_of_time": True}, []),
    ],
    ids=["nothing left", "pruned", "failed", "late but whole"],
)
def test_an_interrupted_trial_keeps_its_state_until_what_goes_on_from_it_has_more(
    tmp_path: Path, ended: dict[str, object], goes_on: list[int]
) -> None:
    made = Results(workdir=tmp_path)
    interrupt(made, 0)
    made.keep(result(1, continues=0, **ended))
    assert [each.number for each in made.interrupted()] == goes_on
    assert has_paused(tmp_path, 0) == bool(goes_on)
    assert [each.number for each in made.history(runner(tmp_path))] == ([0] if goes_on else [1])


def test_the_state_of_a_trial_that_was_interrupted_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    made = Results(workdir=tmp_path)
    interrupt(made, 0)
    interrupt(made, 1, continues=0)  # with a state of a minute ago
    assert [has_paused(tmp_path, number) for number in (0, 1)] == [False, True]
    assert [each.number for each in made.interrupted()] == [1]


def test_a_trial_that_goes_on_from_a_killed_one_ran_only_the_share_of_the_epochs_that_its_seconds_paid(
    tmp_path: Path,
) -> None:
    made = results_of(tmp_path, result(1, spec=spec(epochs=3), continues=0, seconds=10.0, cost=40.0, fidelity=1.0))
    (seen,) = made.history(runner(tmp_path))
    assert seen.seconds / seen.share == pytest.approx(40.0)


def test_the_curve_of_a_killed_trial_is_that_of_its_state(tmp_path: Path) -> None:
    made = results_of(tmp_path, result(0))
    leave_state(tmp_path, 1)
    assert [made.curve_of(number) for number in range(3)] == [(0.5, 0.8, 0.8), (0.5,), ()]
