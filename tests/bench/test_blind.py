"""blind.py: SciPy's ranks, totals without a logit scale, the ceiling."""

import numpy as np
from scipy import stats

from vlmsel_auto.bench.blind import average_rank, calibrated_total, source_ceiling, weighted_rank


def test_average_rank_is_scipys_ranks():
    accuracy = np.random.default_rng(0).random((7, 5))
    expected = -np.mean([stats.rankdata(-column) for column in accuracy.T], axis=0)
    order = average_rank(accuracy)
    np.testing.assert_allclose(7 * order, expected - expected.mean(), atol=1e-12)


def test_weights_of_each_candidate_and_ties_that_stay_ties():
    truth = np.array([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5], [0.5, 0.5, 0.9]])
    weights = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    ranks = 3 * weighted_rank(truth, weights)
    np.testing.assert_allclose(ranks, [1.0, -1.0, 1.0], atol=1e-11)  # ranks 1, 3, 1 around the middle one
    many = np.random.default_rng(0).random((2, 17))
    assert len(np.unique(average_rank(np.column_stack([many, many[::-1]])))) == 1


def test_totals_in_own_units_forget_the_logit_scale():
    rng = np.random.default_rng(1)
    target, sources, factor = rng.random(6), rng.random((6, 4)), 10.0 ** rng.uniform(-1, 1, 6)
    plain = calibrated_total(target, sources)
    np.testing.assert_allclose(calibrated_total(target * factor, sources * factor[:, None]), plain)
    assert np.isnan(calibrated_total(target, np.full((6, 4), np.nan))).all()


def test_source_ceiling_follows_the_source_that_is_the_target():
    rng = np.random.default_rng(2)
    target = rng.random(20)
    sources = np.column_stack([target, rng.random((20, 5))])
    assert stats.spearmanr(source_ceiling(target, sources), target).statistic > 0.9
