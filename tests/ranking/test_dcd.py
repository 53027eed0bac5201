"""dcd.py: the formula in loops, axioms of the divergence, and what must not change it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from vlmsel_auto.ranking.dcd import dcd
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


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20.0))
def test_rescaled_logits_and_shuffled_sources_change_nothing(seed, scale):
    activity = profiles(seed=seed)
    target, sources = activity[5:], activity[:5]
    order = np.random.default_rng(seed).permutation(5)
    plain = divergences(dcd, target, sources)
    np.testing.assert_allclose(divergences(dcd, scale * target, scale * sources), plain, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(divergences(dcd, target, sources[order]), plain[:, order], rtol=1e-12)
