from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from helpers.planning_world import SCORES, N, plan, ranking, tried
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.history import (
    FoldScore,
    Tried,
    best_value,
    expectations,
    fold_ease,
    level_folds,
    observe,
    soft_shift,
    updated_ranking,
    weigh,
)
from vlmsel_auto.records import TrialState

metrics = st.floats(0, 1)


sizes = st.integers(1, 5_000)


def test_the_error_of_a_metric_is_part_of_the_binomial_variance() -> None:
    exact = stats.beta(1 + 32, 1 + 8).std()  # of the share of right images, 32 of 40 being right
    assert weigh(0.8, None, images=40).sd == pytest.approx(np.sqrt(0.6) * exact, rel=1e-9)
    assert 0 < weigh(1.0, None, images=40).sd < weigh(0.8, None, images=40).sd
    for soft in (None, 0.7):
        exactly = weigh(0.8, soft, images=None)
        assert (exactly.value, exactly.sd) == (0.8, 0.0)


def test_weights_are_those_of_generalised_least_squares() -> None:
    own = 0.6 * stats.beta(1 + 80, 1 + 20).var()
    covariance = np.array([[own, 0.53 * own], [0.53 * own, 0.4 * own + 0.03**2]])
    inverse = np.linalg.inv(covariance)
    weights = inverse.sum(axis=0) / inverse.sum()
    found = weigh(0.8, 0.6, images=100)
    assert found.value == pytest.approx(weights @ [0.8, 0.6], rel=1e-9)
    assert found.sd == pytest.approx(np.sqrt(1 / inverse.sum()), rel=1e-9)


def test_few_images_leave_the_word_to_the_soft_metric_and_many_take_it() -> None:
    values = [weigh(0.8, 0.7, images=images).value for images in (20, 100, 400, 40_000)]
    assert values == sorted(values)
    assert values[0] < 0.73
    assert values[-1] > 0.799


@given(metrics, metrics, sizes)
def test_both_together_lie_between_and_know_more(metric: float, soft: float, images: int) -> None:
    both, alone = weigh(metric, soft, images=images), weigh(metric, None, images=images)
    assert min(metric, soft) - 1e-12 <= both.value <= max(metric, soft) + 1e-12
    assert 0 < both.sd <= alone.sd + 1e-12


@given(metrics, metrics, sizes)
def test_one_trial_is_left_as_it_is(metric: float, soft: float, images: int) -> None:
    shifted = soft + soft_shift([(metric, soft), (0.5, None)])
    assert weigh(metric, shifted, images=images).value == pytest.approx(metric, abs=1e-12)


def test_no_soft_metric_no_shift() -> None:
    assert soft_shift([]) == soft_shift([(0.7, None)]) == 0.0


def test_updated_ranking_follows_the_trials() -> None:
    made = plan()
    new = updated_ranking(made, ranking(SCORES), [tried("m0", 0.58), tried("m2", 0.66), tried("m1", 0.6)])
    assert new.order[0] == "m2"
    assert new.order.index("m0") > new.order.index("m1")
    assert all(1 <= line.rank_interval.low <= line.rank_interval.high <= N for line in new.ranked)
    assert sum(line.p_best for line in new.ranked) == pytest.approx(1)
    assert observe(made, []).mean.shape == (N, 2)


def test_few_validation_images_leave_the_choice_to_the_ranking() -> None:
    history = [tried("m0", 0.80, number=0), tried("m1", 0.775, number=1), tried("m6", 0.825, number=2)]
    for images, chosen in ((20, 0), (40_000, 2), (None, 2)):
        expected = expectations(replace(plan(), validation_images=images), history)
        assert set(expected) == {0, 1, 2}
        assert max(expected, key=lambda number: expected[number]) == chosen, images
    assert expectations(plan(), []) == {}
    assert expectations(plan(), [tried("m0", None)]) == {}


def test_on_few_images_who_is_surer_of_the_right_class_is_expected_to_do_better() -> None:
    few = replace(plan(), validation_images=30)
    lucky, sure = tried("m0", 0.8, number=0, soft=0.5), tried("m1", 0.767, number=1, soft=0.7)
    alone = expectations(few, [replace(lucky, soft=None), replace(sure, soft=None)])
    both = expectations(few, [lucky, sure])
    assert alone[0] > alone[1]
    assert both[1] > both[0]
    lower = [replace(each, soft=(each.soft or 0.0) - 0.2) for each in (lucky, sure)]
    assert expectations(few, lower) == pytest.approx(both)  # only differences count
    exact = expectations(replace(plan(), validation_images=40_000), [lucky, sure])
    assert exact[0] > exact[1]


def test_of_one_arm_the_best_trial_leads_by_little() -> None:
    history = [tried("m0", 0.8, number=0), tried("m0", 0.7, number=1), tried("m1", 0.7, number=2)]
    for images, gap in ((30, 0.05), (40_000, 0.1)):
        expected = expectations(replace(plan(), validation_images=images), history)
        assert 0 < expected[0] - expected[1] <= gap
    assert expected[0] - expected[1] == pytest.approx(0.1, abs=0.005)


def stopped(name: str, curve: Curve, number: int, **other: object) -> object:
    return tried(
        name, max(curve.values), state=TrialState.PRUNED, curve=curve, number=number, share=0.5, resumable=True, **other
    )


def test_a_paused_trial_is_evidence_but_no_result() -> None:
    made = plan(audits=0)
    history = [tried("m0", 0.7), stopped("m1", Curve(values=(0.8, 0.9), epochs=4), 1)]
    assert best_value(history) == 0.7
    now = observe(made, history)
    assert now.mean[1, 1] > now.mean[0, 1]
    assert now.sd[1, 1] > now.sd[0, 1]  # where it would have ended is known less well than where another did


def head(name: str, *folds: tuple[float, float]) -> Tried:
    parts = tuple(FoldScore(metric=metric, soft=soft) for metric, soft in folds)
    metric, soft = (float(np.mean(values)) for values in zip(*folds, strict=True))
    return tried(name, metric, "probe", soft=soft, folds=parts)


def test_parts_are_as_easy_as_cross_validated_trials_find_them() -> None:
    history = [head("m0", (0.8, 0.6), (0.4, 0.4)), head("m1", (0.7, 0.5), (0.5, 0.5)), tried("m0", 0.9)]
    first, second = fold_ease(history)
    assert (first.metric, first.soft) == (pytest.approx(0.15), pytest.approx(0.05))
    assert (second.metric, second.soft) == (pytest.approx(-0.15), pytest.approx(-0.05))
    assert fold_ease([tried("m0", 0.9)]) == ()


def test_towers_are_put_on_the_level_of_all_parts() -> None:
    heads = [head("m0", (0.8, 0.6), (0.4, 0.4))]
    easy, hard = (
        tried("m1", value, soft=soft, fold=fold, curve=Curve(values=(value - 0.1, value), epochs=2))
        for fold, value, soft in ((0, 0.9, 0.7), (1, 0.5, 0.5))
    )
    levelled = level_folds([*heads, easy, hard])
    assert levelled[0] == heads[0]
    for trial in levelled[1:]:  # equally good, though one measured .9 and the other .5
        assert trial.validation == pytest.approx(0.7)
        assert trial.soft == pytest.approx(0.6)
        assert trial.curve is not None
        assert trial.curve.values == (pytest.approx(0.6), pytest.approx(0.7))
    assert level_folds([easy, hard]) == [easy, hard]  # nothing says which part is easy


@given(st.lists(st.tuples(metrics, metrics), min_size=2, max_size=5), metrics, st.integers(0, 1))
def test_levelling_moves_towers_alike(folds: list[tuple[float, float]], value: float, fold: int) -> None:
    first, second = tried("m1", value, fold=fold), tried("m2", value / 2, fold=fold)
    one, other = level_folds([head("m0", *folds), first, second])[1:]
    assert (one.validation or 0) - (other.validation or 0) == pytest.approx(value / 2, abs=1e-9)


def test_what_a_method_is_expected_to_gain_holds_until_it_was_tried() -> None:
    heads = [tried("m0", 0.7, "probe"), tried("m1", 0.6, "probe")]
    plain, gaining = plan(), replace(plan(), gains={"finetune": 0.03})
    before, after = (observe(each, heads).mean for each in (plain, gaining))
    assert np.allclose(before[:, 0], after[:, 0])
    assert np.allclose(after[:, 1] - before[:, 1], 0.03)


def test_beside_a_known_level_the_lucky_are_no_surer_than_the_others() -> None:
    lucky, unlucky = (weigh(metric, None, images=13, level=0.9).sd for metric in (1.0, 0.8))
    assert lucky == pytest.approx(np.sqrt(0.6 * (31 / 33) * (2 / 33) / 13), rel=1e-9)  # (13 + 18) of 33 are right
    assert unlucky > lucky > weigh(1.0, None, images=13).sd
    many = weigh(0.8, None, images=10**6, level=0.5).sd
    assert many == pytest.approx(np.sqrt(0.6 * 0.8 * 0.2 / 10**6), rel=1e-3)  # its own metric is known well enough


def test_two_lucky_trials_do_not_outweigh_an_unlucky_one() -> None:
    made = replace(plan(), validation_images=13)
    heads = [tried(f"m{place}", 0.95, "probe", images=64) for place in range(4)]
    towers = [tried("m0", 1.0, images=13), tried("m1", 0.97, images=13), tried("m2", 0.83, images=13)]
    assert observe(made, [*heads, *towers]).mean[:3, 1].mean() < 0.955
