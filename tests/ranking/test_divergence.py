"""divergence.py: weights by formula, any callable as a divergence, what is compared with what."""

import numpy as np
import pytest
from scipy import special

from vlmsel_auto.errors import InputError
from vlmsel_auto.ranking.divergence import divergences, source_weights, with_mean_of_others


def euclid(targets, sources, used):
    """A divergence of three lines, as a researcher may write it."""
    assert used.shape == (len(targets), len(sources))
    return np.linalg.norm(targets[:, None] - sources, axis=2)


def test_a_plain_function_is_a_divergence_and_unknown_tasks_are_left_out():
    activity = np.random.default_rng(0).random((5, 3))
    activity[1] = np.nan
    found = divergences(euclid, activity, activity, leave_out_own=True)
    known = np.delete(np.arange(5), 1)
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()
    assert np.isnan(np.diag(found)).all()
    for t in known:
        for s in known[known != t]:
            assert found[t, s] == pytest.approx(np.linalg.norm(activity[t] - activity[s]))


def test_targets_of_other_blocks_and_without_profiles():
    sources = np.ones((4, 3))
    with pytest.raises(InputError, match="same blocks, but got 2 and 3"):
        divergences(euclid, np.ones((1, 2)), sources)
    assert np.isnan(divergences(euclid, np.full((1, 3), np.nan), sources)).all()
    nothing = np.empty((4, 0))
    assert np.isnan(divergences(euclid, nothing, nothing, leave_out_own=True)).all()


def test_equal_divergences_fall_back_to_equal_weights():
    np.testing.assert_allclose(source_weights(np.full((2, 5), 0.3), temperature=0.1), 0.2)
    np.testing.assert_allclose(source_weights(np.full(4, np.nan), temperature=0.1), 0.25)


def test_weights_follow_the_formula_and_ignore_unknown_sources():
    d = np.array([0.1, 0.4, np.nan, 0.9])
    known = d[[0, 1, 3]]
    expected = special.softmax(-(known - known.min()) / (0.5 * known.std()))
    weights = source_weights(d, temperature=0.5)
    np.testing.assert_allclose(weights[[0, 1, 3]], expected)
    assert weights[2] == 0.0


def test_who_has_no_profile_gets_the_mean_of_the_others():
    d = np.array([[1.0, 3.0], [20.0, 20.0], [np.nan, np.nan]])
    np.testing.assert_allclose(with_mean_of_others(d), [[0.5, 1.5], [1.0, 1.0], [0.75, 1.25]])
