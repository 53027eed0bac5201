"""dcd_authors.py: golden values by hand, the formula in loops, axioms, weights."""

import math

import numpy as np
import pytest
from scipy import special

from vlmsel_auto.ranking.dcd_authors import AUTHORS, AuthorsDcd, authors_weights
from vlmsel_auto.ranking.divergence import TaskProfiles, divergences


def profiles(*, tasks=6, blocks=5, seed=0):
    return TaskProfiles(activity=np.exp(np.random.default_rng(seed).normal(size=(tasks, blocks))) * 1e-6)


def test_golden_values_by_hand():
    tasks = TaskProfiles(activity=np.array([[3.0, 4.0], [6.0, 4.0], [3.0, 1.0]]))
    found = divergences(AUTHORS, tasks, tasks, leave_out_own=True)
    # v / |v| = (.6, .8); alpha = softmax(1.5, 2) = (1, e^.5) / (1 + e^.5)
    second = math.exp(0.5) / (1 + math.exp(0.5))
    assert found[0, 1] == pytest.approx((1 - second) * 3 / 3, rel=1e-8)
    assert found[0, 2] == pytest.approx(second * 3 / 4, rel=1e-8)
    # v / |v| = (6, 4) / sqrt(52); |6 - 3| / 6 where the first target had |3 - 6| / 3
    first = 1 / (1 + math.exp(-2.5 * 2 / math.sqrt(52)))
    assert found[1, 0] == pytest.approx(first * 3 / 6, rel=1e-8)


def test_it_is_the_formula_in_loops():
    activity = profiles(seed=3).activity
    found = divergences(AuthorsDcd(eta=1.5), TaskProfiles(activity=activity), TaskProfiles(activity=activity))
    for t, own in enumerate(activity):
        alpha = special.softmax(1.5 * own / math.sqrt(sum(own**2)))
        for s, other in enumerate(activity):
            gaps = [a * abs(x - y) / (abs(x) + 1e-8) for a, x, y in zip(alpha, own, other, strict=True)]
            assert found[t, s] == pytest.approx(sum(gaps), rel=1e-12)


def test_zero_for_the_target_itself_only_and_not_symmetric():
    found = divergences(AUTHORS, profiles(), profiles())
    np.testing.assert_array_equal(np.diag(found), 0.0)
    away = ~np.eye(len(found), dtype=bool)
    assert found[away].min() > 0.0
    assert np.abs(found - found.T)[away].max() > 0.1


def test_a_source_changes_no_other_divergence_and_unknown_tasks_are_left_out():
    whole = profiles(seed=1)
    found = divergences(AUTHORS, whole, whole)
    few = np.array([True, False, True, True, False, True])
    np.testing.assert_allclose(divergences(AUTHORS, whole, whole.take(few)), found[:, few], rtol=1e-13)
    broken = whole.activity.copy()
    broken[2, 0] = np.nan
    assert np.isnan(divergences(AUTHORS, whole, TaskProfiles(activity=broken))[:, 2]).all()


def test_weights_are_the_softmax_and_ignore_unknown_sources():
    d = np.array([[0.1, 0.4, np.nan, 0.9], [np.nan] * 4])
    weights = authors_weights(d)
    np.testing.assert_allclose(weights[0, [0, 1, 3]], special.softmax(-4 * (d[0, [0, 1, 3]] - 0.1)), rtol=1e-12)
    assert weights[0, 2] == 0.0
    np.testing.assert_array_equal(weights[1], 0.25)
    np.testing.assert_allclose(authors_weights(d, gamma=0.0)[0], [1 / 3, 1 / 3, 0, 1 / 3])
