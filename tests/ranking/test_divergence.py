"""divergence.py: formulas of SciPy and POT, axioms of the divergence, and what must not change it."""

import itertools

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from vlmsel_auto.errors import InputError
from vlmsel_auto.ranking.divergence import (
    DEFAULT,
    PAPER,
    DcdForm,
    block_importance,
    dcd,
    depth_corrected,
    pairwise_dcd,
    transport_importance,
)
from vlmsel_auto.ranking.weighting import pool, source_weights

FORMS = [
    DcdForm(scalar="margin", delta=delta, importance=importance)
    for delta, importance in itertools.product(("signature", "channels", "uncovered", "share"), ("softmax", "uniform"))
] + [DcdForm(scalar="margin", delta="signature", importance="transport")]


def profiles(*, seed=0, sources=6, widths=(5, 7, 4)):
    rng = np.random.default_rng(seed)
    activity = np.exp(rng.normal(size=(sources, len(widths)))) * np.array([10.0, 3.0, 1.0])[: len(widths)]
    return activity, tuple(rng.normal(size=(sources, c)) for c in widths)


@pytest.mark.parametrize("form", FORMS)
def test_the_target_itself_is_at_zero_and_nothing_is_below(form):
    activity, signature = profiles()
    values = dcd(
        target_activity=activity[2],
        source_activity=activity,
        target_signature=[one[2] for one in signature],
        source_signature=signature,
        form=form,
    )
    assert values[2] == pytest.approx(0.0, abs=1e-9 if form.importance != "transport" else 1e-3)
    assert (values >= 0.0).all()
    assert values.max() > 0.0


@pytest.mark.parametrize("form", FORMS[:4:2] + FORMS[4:])
def test_it_is_not_symmetric(form):
    activity, signature = profiles(seed=3)
    matrix = pairwise_dcd(activity=activity, signature=signature, form=form)
    away = ~np.eye(len(matrix), dtype=bool)
    assert np.abs(matrix - matrix.T)[away].max() > 1e-6 or form.importance == "uniform"
    assert np.isnan(np.diag(matrix)).all()


@pytest.mark.parametrize("form", FORMS)
def test_pairwise_rows_are_dcd_against_the_others(form):
    activity, signature = profiles(seed=1)
    matrix = pairwise_dcd(activity=activity, signature=signature, form=form)
    for t in range(len(activity)):
        rest = np.arange(len(activity)) != t
        row = dcd(
            target_activity=activity[t],
            source_activity=activity[rest],
            target_signature=[one[t] for one in signature],
            source_signature=[one[rest] for one in signature],
            form=form,
        )
        np.testing.assert_allclose(matrix[t, rest], row, rtol=1e-7, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20.0))
def test_rescaled_logits_and_shuffled_sources_change_nothing(seed, scale):
    activity, signature = profiles(seed=seed)
    order = np.random.default_rng(seed).permutation(5)
    for form in (DEFAULT, PAPER, DcdForm(scalar="margin", delta="uncovered")):

        def run(factor, rows, form=form):
            return dcd(
                target_activity=factor * activity[5],
                source_activity=factor * activity[rows],
                target_signature=[factor * one[5] for one in signature],
                source_signature=[factor * one[rows] for one in signature],
                form=form,
            )

        plain = run(1.0, np.arange(5))
        np.testing.assert_allclose(run(scale, np.arange(5)), plain, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(run(1.0, order), plain[order], rtol=1e-12)


def test_deltas_are_scipys_divergences():
    activity, signature = profiles(widths=(6,))
    flat = DcdForm(scalar="margin", delta="channels", importance="uniform")
    values = dcd(
        target_activity=activity[0],
        source_activity=activity,
        target_signature=[signature[0][0]],
        source_signature=signature,
        form=flat,
    )
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
    z = depth_corrected(activity, reference=activity)
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(depth_corrected(activity * 7.0, reference=activity * 7.0), z, atol=1e-12)


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


def test_pooling_goes_from_own_to_common_divergences():
    d = np.array([[1.0, 3.0], [20.0, 20.0], [np.nan, np.nan]])
    np.testing.assert_allclose(pool(d, share=0.0)[:2], [[0.5, 1.5], [1.0, 1.0]])
    np.testing.assert_allclose(pool(d, share=1.0), np.tile([0.75, 1.25], (3, 1)))
    np.testing.assert_allclose(pool(d, share=0.0)[2], [0.75, 1.25])


def test_missing_profiles_give_nan_and_bad_shapes_are_named():
    activity, signature = profiles()
    broken = activity.copy()
    broken[1] = np.nan
    values = dcd(
        target_activity=activity[0],
        source_activity=broken,
        target_signature=[one[0] for one in signature],
        source_signature=signature,
    )
    assert np.isnan(values[1])
    assert np.isfinite(np.delete(values, 1)).all()
    with pytest.raises(InputError, match="same blocks, but got 2 and 3"):
        dcd(target_activity=activity[0, :2], source_activity=activity, form=PAPER)
    with pytest.raises(InputError, match="one signature for each of the 3 blocks, but got 0"):
        dcd(target_activity=activity[0], source_activity=activity, form=FORMS[0])
