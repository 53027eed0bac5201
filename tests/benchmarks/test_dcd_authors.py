"""benchmarks/ranking/dcd_authors.py: golden values by hand, the formula in loops, axioms, weights, their NDCG."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.metrics import ndcg_score

from benchmarks.ranking import dcd_authors
from vlmsel_auto.ranking.divergence import divergences


def profiles(*, tasks=6, blocks=5, seed=0):
    return np.exp(np.random.default_rng(seed).normal(size=(tasks, blocks))) * 1e-6


def test_golden_values_by_hand():
    tasks = np.array([[3.0, 4.0], [6.0, 4.0], [3.0, 1.0]])
    found = divergences(dcd_authors.AUTHORS, tasks, tasks, leave_out_own=True)
    # v / |v| = (.6, .8); alpha = softmax(1.5, 2) = (1, e^.5) / (1 + e^.5)
    second = math.exp(0.5) / (1 + math.exp(0.5))
    assert found[0, 1] == pytest.approx((1 - second) * 3 / 3, rel=1e-8)
    assert found[0, 2] == pytest.approx(second * 3 / 4, rel=1e-8)
    # v / |v| = (6, 4) / sqrt(52); |6 - 3| / 6 where the first target had |3 - 6| / 3
    first = 1 / (1 + math.exp(-2.5 * 2 / math.sqrt(52)))
    assert found[1, 0] == pytest.approx(first * 3 / 6, rel=1e-8)


def test_it_is_the_formula_in_loops():
    activity = profiles(seed=3)
    found = divergences(dcd_authors.AuthorsDcd(eta=1.5), activity, activity)
    for t, own in enumerate(activity):
        alpha = special.softmax(1.5 * own / math.sqrt(sum(own**2)))
        for s, other in enumerate(activity):
            gaps = [a * abs(x - y) / (abs(x) + 1e-8) for a, x, y in zip(alpha, own, other, strict=True)]
            assert found[t, s] == pytest.approx(sum(gaps), rel=1e-12)


def test_zero_for_the_target_itself_only_and_not_symmetric():
    found = divergences(dcd_authors.AUTHORS, profiles(), profiles())
    np.testing.assert_array_equal(np.diag(found), 0.0)
    away = ~np.eye(len(found), dtype=bool)
    assert found[away].min() > 0.0
    assert np.abs(found - found.T)[away].max() > 0.1


def test_a_source_changes_no_other_divergence_and_unknown_tasks_are_left_out():
    whole = profiles(seed=1)
    found = divergences(dcd_authors.AUTHORS, whole, whole)
    few = np.array([True, False, True, True, False, True])
    np.testing.assert_allclose(divergences(dcd_authors.AUTHORS, whole, whole[few]), found[:, few], rtol=1e-13)
    broken = whole.copy()
    broken[2, 0] = np.nan
    assert np.isnan(divergences(dcd_authors.AUTHORS, whole, broken)[:, 2]).all()


def test_weights_are_the_softmax_and_ignore_unknown_sources():
    d = np.array([[0.1, 0.4, np.nan, 0.9], [np.nan] * 4])
    weights = dcd_authors.authors_weights(d)
    np.testing.assert_allclose(weights[0, [0, 1, 3]], special.softmax(-4 * (d[0, [0, 1, 3]] - 0.1)), rtol=1e-12)
    assert weights[0, 2] == 0.0
    np.testing.assert_array_equal(weights[1], 0.25)
    np.testing.assert_allclose(dcd_authors.authors_weights(d, gamma=0.0)[0], [1 / 3, 1 / 3, 0, 1 / 3])


@given(predicted=st.permutations(range(9)), actual=st.permutations(range(9)))
def test_the_authors_ndcg_is_sklearns_on_the_intersection_of_the_top_fives(predicted, actual):
    predicted, actual = np.array(predicted, dtype=float), np.array(actual, dtype=float)
    shared = [m for m in range(9) if predicted[m] > 3 and actual[m] > 3]
    if len(shared) < 2:
        assert dcd_authors.authors_ndcg(predicted, actual) == 0.0
    else:
        among = stats.rankdata(actual[shared])
        expected = ndcg_score([among], [predicted[shared]])
        assert dcd_authors.authors_ndcg(predicted, actual) == pytest.approx(expected, abs=1e-12)


def test_the_authors_ndcg_forgives_misses_and_lone_hits_are_nothing():
    actual = np.arange(10.0)[::-1]  # the first five are the best
    two_right = np.array([9.0, 8, 0, 1, 2, 7, 6, 5, 4, 3])
    assert dcd_authors.authors_ndcg(two_right, actual) == 1.0
    turned = np.array([8.0, 9, 0, 1, 2, 7, 6, 5, 4, 3])
    discount = 1 / np.log2(3)
    assert dcd_authors.authors_ndcg(turned, actual) == pytest.approx((1 + 2 * discount) / (2 + discount))
    assert dcd_authors.authors_ndcg(np.array([9.0, 0, 0, 0, 0, 8, 7, 6, 5, 4]), actual) == 0.0
