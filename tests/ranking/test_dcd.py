"""dcd.py: formulas of SciPy and POT, axioms of the divergence, and what must not change it."""

import itertools

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from vlmsel_auto.errors import InputError
from vlmsel_auto.ranking.dcd import (
    DEFAULT,
    Dcd,
    block_importance,
    depth_corrected,
    transport_importance,
)
from vlmsel_auto.ranking.divergence import TaskProfiles, divergences

FORMS = [
    Dcd(delta=delta, importance=importance)
    for delta, importance in itertools.product(("signature", "channels", "uncovered", "share"), ("softmax", "uniform"))
] + [Dcd(delta="signature", importance="transport")]


def tasks(activity, signature):
    return TaskProfiles(activity=activity, signature=signature, absolute=tuple(np.abs(one) for one in signature))


def to_sources(member, target, sources):
    """Divergences (S,) of one target; both are (activity, signature)."""
    own = tasks(target[0][None], tuple(one[None] for one in target[1]))
    return divergences(member, own, tasks(*sources))[0]


def rows(profile, index):
    activity, signature = profile
    return activity[index], tuple(one[index] for one in signature)


def profiles(*, seed=0, sources=6, widths=(5, 7, 4)):
    rng = np.random.default_rng(seed)
    activity = np.exp(rng.normal(size=(sources, len(widths)))) * np.array([10.0, 3.0, 1.0])[: len(widths)]
    return activity, tuple(rng.normal(size=(sources, c)) for c in widths)


@pytest.mark.parametrize("member", FORMS)
def test_the_target_itself_is_at_zero_and_nothing_is_below(member):
    sources = profiles()
    values = to_sources(member, rows(sources, 2), sources)
    assert values[2] == pytest.approx(0.0, abs=1e-9 if member.importance != "transport" else 1e-3)
    assert (values >= 0.0).all()
    assert values.max() > 0.0


@pytest.mark.parametrize("member", FORMS[:4:2] + FORMS[4:])
def test_it_is_not_symmetric(member):
    every = tasks(*profiles(seed=3))
    matrix = divergences(member, every, every, leave_out_own=True)
    away = ~np.eye(len(matrix), dtype=bool)
    assert np.abs(matrix - matrix.T)[away].max() > 1e-6 or member.importance == "uniform"
    assert np.isnan(np.diag(matrix)).all()


@pytest.mark.parametrize("member", FORMS)
def test_pairwise_rows_are_dcd_against_the_others(member):
    given_profiles = profiles(seed=1)
    every = tasks(*given_profiles)
    matrix = divergences(member, every, every, leave_out_own=True)
    for t in range(len(matrix)):
        rest = np.arange(len(matrix)) != t
        row = to_sources(member, rows(given_profiles, t), rows(given_profiles, rest))
        np.testing.assert_allclose(matrix[t, rest], row, rtol=1e-7, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20.0))
def test_rescaled_logits_and_shuffled_sources_change_nothing(seed, scale):
    activity, signature = profiles(seed=seed)
    order = np.random.default_rng(seed).permutation(5)
    for member in (DEFAULT, Dcd(delta="share")):

        def run(factor, chosen, member=member):
            scaled = factor * activity, tuple(factor * one for one in signature)
            return to_sources(member, rows(scaled, 5), rows(scaled, chosen))

        plain = run(1.0, np.arange(5))
        np.testing.assert_allclose(run(scale, np.arange(5)), plain, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(run(1.0, order), plain[order], rtol=1e-12)


def test_deltas_are_scipys_divergences():
    activity, signature = profiles(widths=(6,))
    flat = Dcd(delta="channels", importance="uniform")
    values = to_sources(flat, (activity[0], (signature[0][0],)), (activity, signature))
    shares = np.abs(signature[0]) / np.abs(signature[0]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(values, [stats.entropy(shares[0], q) for q in shares], atol=1e-9)


def test_importance_is_the_entropy_regularised_optimum():
    z, tau = np.array([0.3, -1.0, 0.7]), 0.6
    found = optimize.minimize(
        lambda free: -(special.softmax(free) @ z + tau * stats.entropy(special.softmax(free))), np.zeros(3)
    )
    np.testing.assert_allclose(block_importance(z, temperature=tau), special.softmax(found.x), atol=1e-4)
    np.testing.assert_allclose(block_importance(z, temperature=1e6), np.full(3, 1 / 3), atol=1e-5)
    with pytest.raises(InputError, match="positive, but got 0"):
        block_importance(z, temperature=0)


def test_transport_plan_is_pots_and_covers_every_target_block():
    rng = np.random.default_rng(0)
    z, cost = rng.normal(size=4), rng.random((4, 4))
    plan = transport_importance(z, cost, temperature=1.0, regularisation=0.5)
    np.testing.assert_allclose(plan.sum(axis=1), special.softmax(z), rtol=1e-12)
    expected = ot.sinkhorn(special.softmax(z), np.full(4, 0.25), cost / np.median(cost), 0.5, stopThr=1e-12)
    np.testing.assert_allclose(plan, expected, atol=1e-6)


def test_depth_correction_takes_the_reference_mean_off():
    activity, _ = profiles()
    used = np.ones((6, 6), dtype=bool)
    z, reference = depth_corrected(activity, sources=activity, used=used)
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(reference, np.tile(np.log(activity).mean(axis=0), (6, 1)))
    np.testing.assert_allclose(depth_corrected(activity * 7.0, sources=activity * 7.0, used=used)[0], z, atol=1e-12)


def test_missing_profiles_give_nan_and_missing_channels_are_named():
    activity, signature = profiles()
    broken = activity.copy()
    broken[1] = np.nan
    values = to_sources(DEFAULT, rows((activity, signature), 0), (broken, signature))
    assert np.isnan(values[1])
    assert np.isfinite(np.delete(values, 1)).all()
    with pytest.raises(InputError, match="channels of each of the 3 blocks, but got 0"):
        to_sources(FORMS[0], (activity[0], ()), (activity, ()))
