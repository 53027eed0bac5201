"""Predicted ranks against true ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ranking.probabilities import calibration, claims
from vlmsel_auto.ranks import RankChances, simulate_ranks


def claim(truth, *, p=0.5, low=1.0, high=3.0):
    m = len(truth)
    chances = RankChances(p_best=np.full(m, p), p_top5=np.full(m, p), low=np.full(m, low), high=np.full(m, high))
    return claims(chances, np.array(truth))


def test_outcomes_by_hand():
    found = claim([0.9, 0.1, 0.5, 0.4])
    np.testing.assert_array_equal(found.best, [1, 0, 0, 0])
    np.testing.assert_array_equal(found.top5, [1, 1, 1, 1])
    np.testing.assert_array_equal(found.covered, [1, 0, 1, 1])


@given(st.lists(st.integers(0, 5), min_size=5, max_size=12))
def test_tied_candidates_share_ranks(truth):
    found = claim([float(one) for one in truth])
    assert found.best.sum() == pytest.approx(1.0)
    assert found.top5.sum() == pytest.approx(5.0)
    assert len(set(found.best[np.array(truth) == max(truth)])) == 1


def test_bins_hold_every_claim_once():
    table = calibration([claim([0.3, 0.2, 0.1], p=0.1), claim([0.3, 0.2, 0.1], p=1.0)])
    assert [(one.said, one.n) for one in table.best] == [(pytest.approx(0.1), 3), (1.0, 3)]
    assert table.best[0].seen == pytest.approx(1 / 3)
    assert (table.n, table.coverage) == (6, 1.0)
    assert calibration([]) is None


def test_what_is_drawn_from_the_model_is_calibrated():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(150):
        score, sd = rng.normal(size=10), np.full(10, 0.7)
        chances = simulate_ranks(score, np.diag(sd**2), draws=1500)
        truth = score + sd * rng.normal(size=10)
        found.append(claims(chances, truth))
    table = calibration(found)
    assert all(abs(one.said - one.seen) < 0.1 for one in (*table.best, *table.top5) if one.n > 60)
    assert 0.93 < table.coverage <= 1.0
