import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from helpers.published_world import CANDIDATES, KNOWN, LEVEL_SD, PLAIN, best_seen, drawn_table, look
from vlmsel_auto.planning.next_screening import next_screening, screening_values
from vlmsel_auto.planning.screening_posterior import DEFAULT, Screening, ScreeningPolicy, mixture, screening_posterior
from vlmsel_auto.planning.screening_prior import ScreeningPrior, learn_prior


def search(
    known: ScreeningPrior, truth: np.ndarray, *, loads: int, policy: ScreeningPolicy = DEFAULT
) -> list[Screening]:
    """Screenings without noise."""
    screenings: list[Screening] = []
    for _ in range(loads):
        candidate = next_screening(known, screenings, policy=policy)
        assert candidate is not None
        screenings.append(look(candidate, float(truth[candidate]), 0.01))
    return screenings


def test_the_value_of_a_screening_is_the_integral_of_the_improvement():
    screenings = [look(0, 0.6), look(2, 0.57)]
    value = screening_values(KNOWN, screenings, policy=PLAIN)
    kernel = KNOWN.cov + LEVEL_SD**2
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


def test_every_second_screening_covers_the_published_data_sets():
    scores = np.array([[0.10, 0.10, 0.10, -0.2], [0.09, 0.09, 0.09, -0.19], [-0.19, -0.19, -0.19, 0.39]])
    known = learn_prior(scores + 0.5)
    seen = [look(0, 0.6)]
    np.testing.assert_allclose(screening_values(known, seen), [0, 0.01 / 4, 0.59 / 4], atol=1e-12)
    assert next_screening(known, seen) == 2
    both = [*seen, look(2, 0.3)]
    assert screening_values(known, both)[1] == pytest.approx(
        screening_values(known, both, policy=ScreeningPolicy(cover_every=0))[1]
    )


@settings(max_examples=25, deadline=None)
@given(st.permutations(list(range(CANDIDATES))), st.lists(st.floats(0.2, 0.9), min_size=3, max_size=3))
def test_the_order_of_candidates_does_not_matter(order: list[int], values: list[float]):
    moved = learn_prior(drawn_table()[order])
    screenings = [look(place, value) for place, value in enumerate(values)]
    there = [look(order.index(each.candidate), each.accuracy) for each in screenings]
    for count in range(4):
        np.testing.assert_allclose(
            screening_posterior(moved, there[:count]).mean,
            screening_posterior(KNOWN, screenings[:count]).mean[order],
            atol=1e-9,
        )
        np.testing.assert_allclose(
            screening_values(moved, there[:count]), screening_values(KNOWN, screenings[:count])[order], atol=1e-9
        )
    assert order[best_seen(moved, there)] == best_seen(KNOWN, screenings)


@settings(max_examples=25, deadline=None)
@given(st.floats(-0.1, 0.15), st.lists(st.floats(0.3, 0.7), min_size=2, max_size=4))
def test_a_constant_added_to_every_accuracy_changes_no_value(constant: float, values: list[float]):
    table = 0.2 + 0.6 * drawn_table()
    plain, moved = learn_prior(table), learn_prior(table + constant)
    screenings = [look(place, value) for place, value in enumerate(values)]
    there = [look(each.candidate, each.accuracy + constant) for each in screenings]
    np.testing.assert_allclose(screening_values(moved, there), screening_values(plain, screenings), atol=1e-10)
    np.testing.assert_allclose(
        screening_posterior(moved, there).mean, screening_posterior(plain, screenings).mean + constant, atol=1e-10
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_table_that_holds_needs_few_looks(seed: int):
    table = drawn_table(seed)
    known, truth = learn_prior(table[:, 1:]), table[:, 0]
    screenings = search(known, truth, loads=4)
    assert truth[best_seen(known, screenings)] > truth.max() - 0.02
    assert mixture(known, screenings, DEFAULT).weights.reshape(3, -1).sum(axis=1)[0] > 0.5


@pytest.mark.parametrize("seed", range(3))
def test_looks_overcome_a_reversed_table(seed: int):
    table = drawn_table(seed)
    known, truth = learn_prior(1 - table[:, 1:]), table[:, 0]
    screenings = search(known, truth, loads=7)
    assert truth[screenings[0].candidate] < np.median(truth)  # led astray
    assert mixture(known, screenings, DEFAULT).weights.reshape(3, -1).sum(axis=1)[1] > 0.5
    assert truth[best_seen(known, screenings)] > truth.max() - 0.03


def test_a_cheap_candidate_goes_first_where_little_is_lost():
    first = next_screening(KNOWN, [])
    costs = np.ones(CANDIDATES)
    costs[first] = 1e4
    assert next_screening(KNOWN, [], costs=costs) not in (first, None)
    assert next_screening(KNOWN, [], costs=costs, policy=ScreeningPolicy(cost_power=0.0)) == first
    assert next_screening(KNOWN, [], costs=np.full(CANDIDATES, 7.0)) == first


def test_every_candidate_is_screened_in_the_end():
    truth = drawn_table()[:, 0]
    screenings = search(KNOWN, truth, loads=CANDIDATES)
    assert sorted(each.candidate for each in screenings) == list(range(CANDIDATES))
    assert next_screening(KNOWN, screenings) is None
    assert best_seen(KNOWN, screenings) == int(truth.argmax())


def test_a_candidate_that_is_not_worth_it_is_passed_over():
    first = next_screening(KNOWN, [])
    assert first is not None
    value = screening_values(KNOWN, [])
    least = np.where(np.arange(len(value)) == first, value[first] * DEFAULT.realised * 1.01, 0.0)
    other = next_screening(KNOWN, [], least=least)
    assert other not in {first, None}
    assert next_screening(KNOWN, [], least=np.full(len(value), np.inf)) is None


def test_where_the_portfolio_has_none_worth_it_expected_improvement_decides():
    screenings = [look(0, 0.5, 0.01)]
    covering = screening_values(KNOWN, screenings)
    improving = screening_values(KNOWN, screenings, policy=ScreeningPolicy(cover_every=0))
    only = int(np.argmin(np.where(np.arange(len(covering)) == 0, np.inf, covering - improving)))
    assert improving[only] > covering[only]
    least = np.full(len(covering), np.inf)
    least[only] = DEFAULT.realised * (improving[only] + covering[only]) / 2
    assert next_screening(KNOWN, screenings, least=least) == only
