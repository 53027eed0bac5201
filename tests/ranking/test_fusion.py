"""fusion.py: least squares of SciPy, shrinkage by formula, calibrated errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from vlmsel_auto.ranking.fusion import Fusion, _chosen, _LeftOut, candidate_effect, fit_fusion, fuse, trend


def world(*, m=12, s=15, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(m, s))
    signals = {
        "good": truth + noise * rng.normal(size=(m, s)),
        "weak": truth + 2.0 * rng.normal(size=(m, s)),
        "noise": rng.normal(size=(m, s)),
        "wrong": -truth + noise * rng.normal(size=(m, s)),
    }
    return truth, signals


def test_weights_are_scipys_non_negative_ridge():
    truth, signals = world()
    fusion = fit_fusion(signals, truth, penalty=0.5)
    names = sorted(signals)
    x = np.stack([stats.zscore(signals[name], axis=0).ravel() for name in names], axis=1)
    y = stats.zscore(truth, axis=0).ravel()
    rows = len(y)
    padded = np.vstack([x, np.sqrt(0.5 * rows) * np.eye(4)])
    expected, _ = optimize.nnls(padded, np.concatenate([y, np.zeros(4)]))
    np.testing.assert_allclose([fusion.weights[name] for name in names], expected, atol=1e-10)
    assert fusion.weights["wrong"] == 0.0
    assert fusion.weights["good"] > fusion.weights["weak"]


def test_reliability_weighs_tasks_as_repeating_them_would():
    truth, signals = world(s=6)
    often = np.array([0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 5])
    weighed = fit_fusion(signals, truth, reliability=np.bincount(often) / 3.0)
    repeated = fit_fusion({name: values[:, often] for name, values in signals.items()}, truth[:, often])
    for name in signals:
        assert weighed.weights[name] == pytest.approx(repeated.weights[name], abs=1e-12)
    assert weighed.weights != fit_fusion(signals, truth).weights


def test_the_error_is_that_of_tasks_left_out():
    truth, signals = world()
    fusion = fit_fusion(signals, truth)
    errors = []
    for s in range(15):
        rest = np.arange(15) != s
        part = fit_fusion({name: values[:, rest] for name, values in signals.items()}, truth[:, rest])
        errors.append(
            stats.zscore(truth[:, s]) - trend(part, {name: values[:, s] for name, values in signals.items()}, n=12)
        )
    assert fusion.sd == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-9)


def test_without_signals_the_candidate_effect_is_the_weighted_mean_of_the_truth():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(8, 1)) + 0.2 * rng.normal(size=(8, 6))
    similarity = np.ones((8, 6, 6))
    fusion = fit_fusion({}, truth, similarity=similarity)
    weights = rng.random((8, 6))
    score = fuse(fusion, {}, n=8, similarity=weights)
    z = stats.zscore(truth, axis=0)
    mean = (weights * z).sum(axis=1) / weights.sum(axis=1)
    effective = weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1)
    np.testing.assert_allclose(score, mean * effective / (effective + fusion.shrink))


def test_candidate_effects_are_found_where_signals_miss_them():
    rng = np.random.default_rng(2)
    own = rng.normal(size=(12, 1))
    seen = rng.normal(size=(12, 16))
    truth = seen + own + 0.1 * rng.normal(size=(12, 16))
    similarity = np.ones((12, 15, 15))
    fusion = fit_fusion({"seen": seen[:, :15]}, truth[:, :15], similarity=similarity)
    assert np.isfinite(fusion.shrink)
    with_effects = fuse(fusion, {"seen": seen[:, 15]}, n=12, similarity=np.ones((12, 15)))
    without = trend(fusion, {"seen": seen[:, 15]}, n=12)
    assert stats.kendalltau(with_effects, truth[:, 15]).statistic > stats.kendalltau(without, truth[:, 15]).statistic


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_scales_of_signals_and_order_of_candidates_change_nothing(seed):
    rng = np.random.default_rng(seed)
    truth, signals = world(seed=seed, m=6, s=5)
    order = rng.permutation(6)
    plain = fit_fusion(signals, truth)
    moved = fit_fusion({name: 7.0 * values[order] - 3.0 for name, values in signals.items()}, truth[order])
    for name in signals:
        assert moved.weights[name] == pytest.approx(plain.weights[name], abs=1e-9)
    assert moved.sd == pytest.approx(plain.sd)


def test_draws_apart_are_trusted_less_than_their_mean():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(12, 15))
    draws = truth[:, :, None] + 1.5 * rng.normal(size=(12, 15, 3))
    assert fit_fusion({"x": draws}, truth).sd > fit_fusion({"x": draws.mean(axis=2)}, truth).sd


def test_a_draw_that_is_repeated_counts_once():
    truth, signals = world(s=6)
    repeated = {name: np.repeat(values[:, :, None], 3, axis=2) for name, values in signals.items()}
    assert fit_fusion(repeated, truth).weights == pytest.approx(fit_fusion(signals, truth).weights)


def test_unknown_values_count_as_average():
    truth, signals = world()
    truth[:, 3] = np.nan
    truth[4, 5] = np.nan
    assert np.isfinite(fit_fusion(signals, truth, similarity=np.ones((12, 15, 15))).sd)
    empty = fit_fusion({}, np.full((3, 2), np.nan))
    assert (empty.sources, empty.sd) == (0, 1.0)
    assert candidate_effect(np.full((2, 3), np.nan), np.ones((2, 3)), shrink=1.0).tolist() == [0.0, 0.0]
    fixed = Fusion(weights={"x": 1.0}, sd=1.0, trend_sd=1.0, sources=0)
    assert fuse(fixed, {"x": np.array([1.0, 2.0])}, n=2).tolist() == [-1.0, 1.0]


def test_a_task_on_which_all_are_equal_does_not_choose_the_shrinkage():
    truth, signals = world(s=8, noise=1.0, seed=3)
    similarity = np.ones((12, 8, 8)) * (1 - np.eye(8))
    expected = fit_fusion(signals, truth, similarity=similarity, penalty=0.5).shrink
    equal = np.repeat([[1.0], [0.5]], [11, 1], axis=0)  # eleven share the first rank, so nothing is relevant
    rng = np.random.default_rng(0)
    more = {name: np.hstack([values, rng.normal(size=(12, 1))]) for name, values in signals.items()}
    wider = np.ones((12, 9, 9)) * (1 - np.eye(9))
    wider[:, :, 8] = 0.0  # and it is like none of the others
    found = fit_fusion(more, np.hstack([truth, equal]), similarity=wider, penalty=0.5)
    assert found.shrink == expected != 2.0


def test_the_strongest_penalty_within_one_standard_error_of_the_least_error_is_chosen():
    truth, signals = world(s=12, noise=0.1, seed=4)
    chosen = fit_fusion(signals, truth)
    errors = {}
    for penalty in (0.05, 0.1, 0.2, 0.5, 1.5):
        tasks = []
        for s in range(12):
            rest = np.arange(12) != s
            part = fit_fusion(
                {name: values[:, rest] for name, values in signals.items()}, truth[:, rest], penalty=penalty
            )
            said = trend(part, {name: values[:, s] for name, values in signals.items()}, n=12)
            tasks.append(np.mean((stats.zscore(truth[:, s]) - said) ** 2))
        errors[penalty] = np.array(tasks)
    best = min(errors.values(), key=np.mean)
    within = [penalty for penalty, each in errors.items() if np.mean(each - best) <= np.std(each - best) / np.sqrt(12)]
    assert chosen.weights == fit_fusion(signals, truth, penalty=max(within)).weights
    assert chosen.weights != fit_fusion(signals, truth, penalty=0.5).weights  # a clear signal is shrunk less
    few = {name: values[:, :4] for name, values in signals.items()}
    assert fit_fusion(few, truth[:, :4]).weights == fit_fusion(few, truth[:, :4], penalty=0.5).weights


def left_out(*gains, error=1.0):
    return _LeftOut(error=error, gains=np.array(gains))


def test_the_strongest_shrinkage_within_one_standard_error_of_the_best_is_chosen():
    everywhere = np.ones(4)
    tried = {
        2.0: left_out(0.6, 0.7, 0.8, 0.9),
        10.0: left_out(0.5, 0.7, 0.8, 0.9),  # -.025 on average, standard error .022
        50.0: left_out(0.5, 0.6, 0.7, 0.9),  # -.075, .022
    }
    assert _chosen(tried, everywhere, by_order=True) == 2.0
    assert _chosen(tried | {10.0: left_out(0.5, 0.7, 0.8, 0.95)}, everywhere, by_order=True) == 10.0
    trusted = np.array([0.05, 1.0, 1.0, 1.0])  # the task that sets 2 and 10 apart is hardly more than noise
    assert _chosen(tried, trusted, by_order=True) == 10.0
    equal = {k: left_out(0.8, 0.8, 0.8, np.nan) for k in (2.0, 10.0, 50.0)}
    assert _chosen(equal, everywhere, by_order=True) == 50.0


def test_the_error_chooses_where_no_order_tells_shrinkages_apart():
    tried = {2.0: left_out(0.9, 0.9, error=0.7), 10.0: left_out(0.5, 0.5, error=0.6)}
    assert _chosen(tried, np.ones(2), by_order=False) == 10.0
    unordered = {k: left_out(np.nan, np.nan, error=k) for k in (2.0, 10.0)}
    assert _chosen(unordered, np.ones(2), by_order=True) == 2.0


def test_a_task_that_lacks_a_draw_counts_as_if_its_draw_were_repeated():
    truth, signals = world(s=8)
    said = signals["weak"][:, :, None]
    lacking, repeated = np.full((*truth.shape, 2), np.nan), np.repeat(said, 2, axis=2)
    lacking[:, :, :1] = said
    lacking[:, :3, 1] = repeated[:, :3, 1] = said[:, :3, 0] + 0.1
    image = {"good": signals["good"]}
    some = fit_fusion({**image, "said": lacking}, truth, similarity=np.ones((12, 8, 8)))
    whole = fit_fusion({**image, "said": repeated}, truth, similarity=np.ones((12, 8, 8)))
    assert some.weights == whole.weights
    assert (some.sd, some.shrink) == (whole.sd, whole.shrink)
