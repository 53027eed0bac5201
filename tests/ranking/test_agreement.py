"""agreement.py against SciPy and scikit-learn, its invariances, and what it refuses to say."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import ndcg_score

from vlmsel_auto.errors import InputError
from vlmsel_auto.ranking.agreement import (
    agreement,
    mean_interval,
    ndcg,
    relevance,
    tau_b,
    top_k_loss,
    weighted_tau,
)

coarse = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=12)


@given(coarse)
def test_ndcg_is_sklearns_with_our_relevance(pairs):
    predicted, actual = np.array(pairs, dtype=float).T
    expected = ndcg_score([relevance(actual)], [predicted], k=5)
    assert ndcg(predicted, actual) == pytest.approx(expected, abs=1e-12)


@given(coarse)
def test_taus_are_scipys_or_zero_when_nothing_is_ordered(pairs):
    predicted, actual = np.array(pairs, dtype=float).T
    if np.ptp(predicted) == 0 or np.ptp(actual) == 0:
        assert tau_b(predicted, actual) == weighted_tau(predicted, actual) == 0.0
    else:
        assert tau_b(predicted, actual) == pytest.approx(stats.kendalltau(predicted, actual).statistic)
        assert weighted_tau(predicted, actual) == pytest.approx(stats.weightedtau(predicted, actual).statistic)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_loss_with_ties_is_the_mean_over_every_order_of_the_tied(k):
    predicted = np.array([2.0, 1.0, 1.0, 1.0, 0.0])
    actual = np.array([0.5, 0.9, 0.3, 0.7, 1.0])
    losses = []
    for order in permutations(range(5)):
        place = np.lexsort((order, -predicted))[:k]
        losses.append(actual.max() - actual[place].max())
    assert top_k_loss(predicted, actual, k=k) == pytest.approx(np.mean(losses))


def test_perfect_and_reversed_orders():
    actual = np.linspace(0.2, 0.9, 20)
    assert ndcg(actual, actual) == pytest.approx(1.0)
    assert ndcg(-actual, actual) == 0.0
    assert top_k_loss(-actual, actual, k=5) == pytest.approx(actual[-1] - actual[4])


def test_golden_values():
    predicted = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    actual = np.array([0.70, 0.81, 0.64, 0.75, 0.60, 0.62, 0.50, 0.41, 0.33])
    result = agreement(predicted, actual, seed=1)
    assert relevance(actual).tolist() == [3, 5, 2, 4, 0, 1, 0, 0, 0]
    assert result.ndcg5 == ndcg(predicted, actual)
    assert (result.tau_b, result.weighted_tau) == (tau_b(predicted, actual), weighted_tau(predicted, actual))
    assert (result.top1_loss, result.top5_loss) == (pytest.approx(0.11), 0.0)
    assert result.tau_b_interval.low < result.tau_b < result.tau_b_interval.high


def test_few_candidates_are_too_few_to_say():
    assert agreement(np.array([]), np.array([])).top1_loss is None
    one = agreement(np.array([1.0]), np.array([0.5]))
    assert (one.tau_b, one.ndcg5, one.top1_loss) == (None, None, 0.0)
    assert "too few" in one.note
    seven = agreement(np.arange(7.0), np.arange(7.0))
    assert seven.tau_b == pytest.approx(1.0)
    assert seven.tau_b_interval is None
    assert "too few for intervals" in seven.note
    assert agreement(np.arange(8.0), np.arange(8.0)).note == ""


@pytest.mark.parametrize("n", [5, 12])
def test_without_an_order_on_one_side_there_is_no_tau_and_a_note_says_so(n):
    same, rising = np.full(n, 0.8), np.linspace(0.2, 0.9, n)
    came_out = agreement(rising, same)
    assert (came_out.tau_b, came_out.weighted_tau, came_out.ndcg5) == (None, None, None)
    assert (came_out.tau_b_interval, came_out.ndcg5_interval) == (None, None)
    assert (came_out.top1_loss, came_out.note) == (0.0, f"all {n} came out equal, so there is no order to predict")
    predicted = agreement(same, rising)
    assert (predicted.tau_b, predicted.weighted_tau, predicted.tau_b_interval) == (None, None, None)
    assert predicted.ndcg5 == ndcg(same, rising)  # the mean over all orders
    assert predicted.note == f"it takes all {n} for equal, so it predicts no order"


def test_unequal_lengths_and_nan_are_refused():
    with pytest.raises(InputError, match="one length, but got"):
        agreement(np.zeros(3), np.zeros(4))
    with pytest.raises(InputError, match="finite"):
        agreement(np.array([0.0, np.nan]), np.zeros(2))


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide():
    values = np.random.default_rng(0).normal(size=400)
    found = mean_interval(values, seed=0)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert found.low < values.mean() < found.high
