from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel

from helpers.published_world import CANDIDATES, DATASETS, drawn_table
from vlmsel_auto.planning.looking import (
    DEFAULT,
    Look,
    LookingPolicy,
    best_seen,
    look_values,
    next_look,
    outlook,
)
from vlmsel_auto.planning.scenarios import Scenarios, learn_scenarios

PLAIN = LookingPolicy(cover_every=0, p_reversed=0.0, p_vague=0.0, spreads=(1.0,))  # one Gaussian
KNOWN = learn_scenarios(drawn_table())


def look(candidate: int, accuracy: float, sd: float = 0.03) -> Look:
    return Look(candidate=candidate, accuracy=accuracy, sd=sd)


def search(known: Scenarios, truth: np.ndarray, *, loads: int, policy: LookingPolicy = DEFAULT) -> list[Look]:
    """Looks without noise."""
    looks: list[Look] = []
    for _ in range(loads):
        candidate = next_look(known, looks, policy=policy)
        assert candidate is not None
        looks.append(look(candidate, float(truth[candidate]), 0.01))
    return looks


class Given(Kernel):
    """A kernel matrix over indices."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, X, Y=None, eval_gradient=False):  # noqa: FBT002 - scikit-learn's signature
        rows = X[:, 0].astype(int)
        return self.matrix[np.ix_(rows, rows if Y is None else Y[:, 0].astype(int))]

    def diag(self, X):
        return np.diag(self.matrix)[X[:, 0].astype(int)]

    def is_stationary(self):
        return False


def level_sd() -> float:
    return PLAIN.level_width * KNOWN.level_sd


def test_one_story_and_spread_is_gaussian_process_regression():
    looks = [look(0, 0.62, 0.03), look(5, 0.48, 0.05), look(7, 0.55, 0.02)]
    prior = KNOWN.level + KNOWN.mean
    places = np.array([[each.candidate] for each in looks])
    process = GaussianProcessRegressor(
        Given(KNOWN.cov + level_sd() ** 2), alpha=np.array([each.sd**2 for each in looks]), optimizer=None
    )
    process.fit(places, np.array([each.accuracy for each in looks]) - prior[places[:, 0]])
    mean, sd = process.predict(np.arange(CANDIDATES)[:, None], return_std=True)
    found = outlook(KNOWN, looks, policy=PLAIN)
    np.testing.assert_allclose(found.mean, prior + mean, atol=1e-8)
    np.testing.assert_allclose(found.sd, sd, atol=1e-8)


def test_stories_and_spreads_are_weighed_by_their_likelihoods():
    policy = LookingPolicy(cover_every=0, p_reversed=0.2, p_vague=0.3, spreads=(0.5, 2.0), spread_log_sd=0.7)
    looks = [look(0, 0.45), look(11, 0.6), look(4, 0.5)]
    rows = [each.candidate for each in looks]
    values, noise = [each.accuracy for each in looks], np.diag([each.sd**2 for each in looks])
    variance = np.mean(KNOWN.mean**2 + np.diag(KNOWN.cov))
    stories = [
        (0.5, KNOWN.mean, KNOWN.cov),
        (0.2, -KNOWN.mean, KNOWN.cov),
        (0.3, np.zeros(CANDIDATES), variance * np.eye(CANDIDATES)),
    ]
    weights = np.zeros(3)
    for story, (share, mean, cov) in enumerate(stories):
        for spread in policy.spreads:
            kernel = spread**2 * cov + (policy.level_width * KNOWN.level_sd) ** 2
            density = stats.multivariate_normal(KNOWN.level + spread * mean[rows], kernel[np.ix_(rows, rows)] + noise)
            weights[story] += share * stats.norm.pdf(np.log(spread), scale=0.7) * density.pdf(values)
    found = outlook(KNOWN, looks, policy=policy)
    np.testing.assert_allclose([found.p_published, found.p_reversed, found.p_vague], weights / weights.sum())


def test_the_value_of_a_look_is_the_integral_of_the_improvement():
    looks = [look(0, 0.6), look(2, 0.57)]
    value = look_values(KNOWN, looks, policy=PLAIN)
    kernel = KNOWN.cov + level_sd() ** 2
    rows = [0, 2]
    gain = kernel[:, rows] @ np.linalg.inv(kernel[np.ix_(rows, rows)] + 0.03**2 * np.eye(2))
    mean = KNOWN.level + KNOWN.mean + gain @ (np.array([0.6, 0.57]) - KNOWN.level - KNOWN.mean[rows])
    cov = kernel - gain @ kernel[rows]
    best = max(rows, key=lambda place: mean[place])
    for place in (1, 6, 11):
        sd = np.sqrt(cov[place, place] + cov[best, best] - 2 * cov[place, best])
        away = mean[place] - mean[best]
        expected, _ = integrate.quad(
            lambda x, away=away, sd=sd: x * stats.norm.pdf(x, away, sd), 0, max(away, 0) + 12 * sd
        )
        assert value[place] == pytest.approx(expected, rel=1e-6)
    assert value[0] == value[2] == 0


def test_every_second_look_covers_the_published_data_sets():
    standings = np.array([[0.10, 0.10, 0.10, -0.2], [0.09, 0.09, 0.09, -0.19], [-0.19, -0.19, -0.19, 0.39]])
    known = learn_scenarios(standings + 0.5)
    seen = [look(0, 0.6)]
    np.testing.assert_allclose(look_values(known, seen), [0, 0.01 / 4, 0.59 / 4], atol=1e-12)
    assert next_look(known, seen) == 2
    both = [*seen, look(2, 0.3)]
    assert look_values(known, both)[1] == pytest.approx(
        look_values(known, both, policy=LookingPolicy(cover_every=0))[1]
    )


@settings(max_examples=25, deadline=None)
@given(st.permutations(list(range(CANDIDATES))), st.lists(st.floats(0.2, 0.9), min_size=3, max_size=3))
def test_the_order_of_candidates_does_not_matter(order: list[int], values: list[float]):
    moved = learn_scenarios(drawn_table()[order])
    looks = [look(place, value) for place, value in enumerate(values)]
    there = [look(order.index(each.candidate), each.accuracy) for each in looks]
    for count in range(4):
        np.testing.assert_allclose(
            outlook(moved, there[:count]).mean, outlook(KNOWN, looks[:count]).mean[order], atol=1e-9
        )
        np.testing.assert_allclose(
            look_values(moved, there[:count]), look_values(KNOWN, looks[:count])[order], atol=1e-9
        )
    assert order[best_seen(moved, there)] == best_seen(KNOWN, looks)


@settings(max_examples=25, deadline=None)
@given(st.floats(-0.1, 0.15), st.lists(st.floats(0.3, 0.7), min_size=2, max_size=4))
def test_a_constant_added_to_every_accuracy_changes_no_value(constant: float, values: list[float]):
    table = 0.2 + 0.6 * drawn_table()
    plain, moved = learn_scenarios(table), learn_scenarios(table + constant)
    looks = [look(place, value) for place, value in enumerate(values)]
    there = [look(each.candidate, each.accuracy + constant) for each in looks]
    np.testing.assert_allclose(look_values(moved, there), look_values(plain, looks), atol=1e-10)
    np.testing.assert_allclose(outlook(moved, there).mean, outlook(plain, looks).mean + constant, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, DATASETS - 1), st.floats(-0.15, 0.15))
def test_a_constant_added_to_one_data_set_changes_no_first_look(column: int, constant: float):
    table = 0.2 + 0.6 * drawn_table()
    moved = table.copy()
    moved[:, column] += constant
    np.testing.assert_allclose(
        look_values(learn_scenarios(moved), []), look_values(learn_scenarios(table), []), atol=1e-10
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, CANDIDATES - 1), st.floats(0.05, 0.95))
def test_a_look_without_noise_pins_the_value_and_more_noise_moves_less(candidate: int, value: float):
    pinned = outlook(KNOWN, [look(candidate, value, 0.0)])
    assert pinned.mean[candidate] == pytest.approx(value, abs=1e-6)
    assert pinned.sd[candidate] < 1e-5
    before = outlook(KNOWN, [], policy=PLAIN).mean
    moves = [
        np.abs(outlook(KNOWN, [look(candidate, value, sd)], policy=PLAIN).mean - before) for sd in (0.0, 0.02, 0.1, 0.5)
    ]
    assert all(np.all(less <= more + 1e-12) for more, less in pairwise(moves))


def test_a_disappointment_lowers_its_family_most():
    looks = [look(1, 0.6), look(2, 0.6), look(0, 0.45)]  # 3, 6 and 9 are of the family of 0
    now, before = outlook(KNOWN, looks).mean, outlook(KNOWN, looks[:2]).mean
    fall = before - now
    assert fall[[3, 6, 9]].min() > fall[[4, 5, 7, 8]].max()


@pytest.mark.parametrize("seed", range(3))
def test_a_table_that_holds_needs_few_looks(seed: int):
    table = drawn_table(seed)
    known, truth = learn_scenarios(table[:, 1:]), table[:, 0]
    looks = search(known, truth, loads=4)
    assert truth[best_seen(known, looks)] > truth.max() - 0.02
    assert outlook(known, looks).p_published > 0.5


@pytest.mark.parametrize("seed", range(3))
def test_looks_overcome_a_reversed_table(seed: int):
    table = drawn_table(seed)
    known, truth = learn_scenarios(1 - table[:, 1:]), table[:, 0]
    looks = search(known, truth, loads=7)
    assert truth[looks[0].candidate] < np.median(truth)  # led astray
    assert outlook(known, looks).p_reversed > 0.5
    assert truth[best_seen(known, looks)] > truth.max() - 0.03


def test_a_table_under_wrong_names_loses_its_say():
    table = drawn_table()
    order = np.random.default_rng(5).permutation(CANDIDATES)
    known, truth = learn_scenarios(table[order, 1:]), table[:, 0] * 1.2
    looks = search(known, truth, loads=9)
    assert outlook(known, looks).p_published < 0.5 < outlook(known, looks[:1]).p_published


def test_a_cheap_candidate_goes_first_where_little_is_lost():
    first = next_look(KNOWN, [])
    costs = np.ones(CANDIDATES)
    costs[first] = 1e4
    assert next_look(KNOWN, [], costs=costs) not in (first, None)
    assert next_look(KNOWN, [], costs=costs, policy=LookingPolicy(cost_power=0.0)) == first
    assert next_look(KNOWN, [], costs=np.full(CANDIDATES, 7.0)) == first


def test_every_candidate_is_looked_at_in_the_end():
    truth = drawn_table()[:, 0]
    looks = search(KNOWN, truth, loads=CANDIDATES)
    assert sorted(each.candidate for each in looks) == list(range(CANDIDATES))
    assert next_look(KNOWN, looks) is None
    assert best_seen(KNOWN, looks) == int(truth.argmax())


@pytest.mark.parametrize(
    "looks",
    [
        [look(CANDIDATES, 0.5)],
        [look(-1, 0.5)],
        [look(0, 1.5)],
        [look(0, float("nan"))],
        [look(0, 0.5, -0.1)],
        [look(0, 0.5, float("inf"))],
        [look(0, 0.5), look(0, 0.6)],
    ],
)
def test_looks_that_cannot_be_are_refused(looks):
    for function in (outlook, look_values, next_look, best_seen):
        with pytest.raises(ValueError, match="but got"):
            function(KNOWN, looks)


def test_a_choice_without_looks_and_costs_that_are_none_are_refused():
    with pytest.raises(ValueError, match="at least one look"):
        best_seen(KNOWN, [])
    for costs in (np.ones(3), np.zeros(CANDIDATES), np.full(CANDIDATES, np.nan)):
        with pytest.raises(ValueError, match="positive numbers"):
            next_look(KNOWN, [], costs=costs)


@pytest.mark.parametrize(
    "settings_",
    [
        {"p_reversed": -0.1},
        {"p_reversed": 0.5, "p_vague": 0.5},
        {"spreads": ()},
        {"spreads": (0.0, 1.0)},
        {"level_width": 0.0},
        {"cover_every": -1},
        {"cost_power": -1.0},
    ],
)
def test_a_policy_out_of_range_is_refused(settings_):
    with pytest.raises(ValueError, match="but got"):
        LookingPolicy(**settings_)


def test_a_candidate_that_is_not_worth_it_is_passed_over():
    first = next_look(KNOWN, [])
    assert first is not None
    value = look_values(KNOWN, [])
    least = np.where(np.arange(len(value)) == first, value[first] * DEFAULT.realised * 1.01, 0.0)
    other = next_look(KNOWN, [], least=least)
    assert other not in {first, None}
    assert next_look(KNOWN, [], least=np.full(len(value), np.inf)) is None
    with pytest.raises(ValueError, match="least must be"):
        next_look(KNOWN, [], least=np.zeros(1))


def test_where_the_portfolio_has_none_worth_it_expected_improvement_decides():
    looks = [look(0, 0.5, 0.01)]
    covering = look_values(KNOWN, looks)
    improving = look_values(KNOWN, looks, policy=LookingPolicy(cover_every=0))
    only = int(np.argmin(np.where(np.arange(len(covering)) == 0, np.inf, covering - improving)))
    assert improving[only] > covering[only]
    least = np.full(len(covering), np.inf)
    least[only] = DEFAULT.realised * (improving[only] + covering[only]) / 2
    assert next_look(KNOWN, looks, least=least) == only
