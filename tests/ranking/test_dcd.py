"""dcd.py: the formula in loops, axioms of the divergence, and what must not change it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from vlmsel_auto.ranking.dcd import dcd, depth_corrected
from vlmsel_auto.ranking.divergence import divergences


def profiles(*, seed=0, tasks=6):
    return np.exp(np.random.default_rng(seed).normal(size=(tasks, 3))) * np.array([10.0, 3.0, 1.0])


def test_it_is_the_formula_in_loops():
    activity = profiles(seed=1)
    found = divergences(dcd, activity, activity, leave_out_own=True)
    assert np.isnan(np.diag(found)).all()
    for t, own in enumerate(activity):
        rest = [s for s in range(len(activity)) if s != t]
        mean = np.log(activity[rest]).mean(axis=0)
        weights = special.softmax(np.log(own) - mean)
        for s in rest:
            gaps = [max(0.0, a - b) for a, b in zip(np.log(own), np.log(activity[s]), strict=True)]
            assert found[t, s] == pytest.approx(weights @ gaps)


def test_the_target_itself_is_at_zero_nothing_is_below_and_it_is_not_symmetric():
    found = divergences(dcd, profiles(), profiles())
    np.testing.assert_allclose(np.diag(found), 0.0, atol=1e-12)
    assert (found >= 0.0).all()
    assert np.abs(found - found.T).max() > 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20.0))
def test_rescaled_logits_and_shuffled_sources_change_nothing(seed, scale):
    activity = profiles(seed=seed)
    target, sources = activity[5:], activity[:5]
    order = np.random.default_rng(seed).permutation(5)
    plain = divergences(dcd, target, sources)
    np.testing.assert_allclose(divergences(dcd, scale * target, scale * sources), plain, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(divergences(dcd, target, sources[order]), plain[:, order], rtol=1e-12)


def test_depth_correction_takes_the_reference_mean_off():
    activity = profiles()
    used = np.ones((6, 6), dtype=bool)
    z = depth_corrected(activity, activity, used)
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(depth_corrected(activity * 7.0, activity * 7.0, used), z, atol=1e-12)


def test_missing_profiles_give_nan():
    broken = profiles()
    broken[1] = np.nan
    found = divergences(dcd, profiles()[:1], broken)[0]
    assert np.isnan(found[1])
    assert np.isfinite(np.delete(found, 1)).all()
