"""benchmarks/ranking/swab.py: POT's plans carry ranks and gaps."""

import numpy as np
import ot
import pytest

from benchmarks.ranking import swab


def test_swab_plans_are_pots_and_carry_ranks_and_gaps():
    rng = np.random.default_rng(3)
    source, target = rng.normal(size=(9, 6)), rng.normal(size=(4, 6))
    exact, partial = swab.class_plan(source, target, kind="exact"), swab.class_plan(source, target, kind="partial")
    np.testing.assert_allclose(exact.sum(axis=0), 0.25)
    assert partial.sum() == pytest.approx(0.9)
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (source, target)]
    cost = np.exp(1 - unit[0] @ unit[1].T)
    assert np.sum(exact * cost) == pytest.approx(ot.emd2(np.full(9, 1 / 9), np.full(4, 1 / 4), cost))
    ranks = np.arange(9.0)
    assert swab.class_rank_score(exact, ranks) == pytest.approx(np.mean(ranks))
    perfect = swab.gap_score(
        exact, source_gaps=np.zeros((9, 6)), target_text=target, text_mean=np.zeros(6), text_sd=np.ones(6)
    )
    own = unit[1] @ unit[1].T
    assert perfect == pytest.approx(np.mean(1 - (own - 2 * np.eye(4)).max(axis=1)))
    assert swab.similar_classes(target, target).all()
    np.testing.assert_array_equal(swab.borda(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])), [2.0, 2.0, 2.0])
