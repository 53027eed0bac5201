"""arms.py: beliefs over settings against direct Gaussian algebra, and what a search with them finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vlmsel_auto.integrations import _arms as arms
from vlmsel_auto.integrations._arms import ArmBelief, learn_arms, posterior_arms, warp

M, J = 5, 3
CANDIDATES, PLACES = np.repeat(np.arange(M), J), np.tile(np.arange(J), M)


def past(seed: int = 0, tasks: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = np.linspace(0.8, 0.6, M)[CANDIDATES] - np.array([0.1, 0.0, 0.05])[PLACES]
    return base + 0.02 * rng.standard_normal((tasks, M * J))


def learned(values: np.ndarray) -> ArmBelief:
    return learn_arms(values, candidates=CANDIDATES, settings=PLACES)


def search(belief: ArmBelief, truth: np.ndarray, count: int) -> list[int]:
    seen: list[int] = []
    for _ in range(count):
        gain = posterior_arms(belief, tried=seen, values=truth[seen].tolist()).gain.copy()
        gain[seen] = -np.inf
        seen.append(int(gain.argmax()))
    return seen


def test_parts_sum_to_the_centred_mean_and_are_main_effects() -> None:
    belief = learned(past())
    by_candidate, by_setting, rest = belief.parts
    np.testing.assert_allclose(belief.parts.sum(axis=0), belief.mean - belief.mean.mean(), atol=1e-12)
    grid = belief.mean.reshape(M, J)
    np.testing.assert_allclose(by_candidate.reshape(M, J)[:, 0], grid.mean(axis=1) - grid.mean(), atol=1e-12)
    np.testing.assert_allclose(by_setting.reshape(M, J)[0], grid.mean(axis=0) - grid.mean(), atol=1e-12)
    np.testing.assert_allclose(rest.reshape(M, J).sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(rest.reshape(M, J).sum(axis=1), 0, atol=1e-12)


def test_learned_covariance_is_positive_and_symmetric() -> None:
    belief = learned(past())
    np.testing.assert_allclose(belief.cov, belief.cov.T)
    assert np.linalg.eigvalsh(belief.cov).min() > 0
    assert np.linalg.eigvalsh(belief.uninformative).min() > 0


def test_posterior_is_the_evidence_weighted_mean_of_gaussian_posteriors() -> None:
    belief = learned(past())
    tried, values = [1, 4, 9], np.array([0.70, 0.75, 0.62])
    warped = warp(values, best=0.75, top=belief.top)
    centre = warped.mean()
    level = (arms._LEVEL * belief.spread) ** 2
    noise = (arms._NOISE * belief.spread) ** 2 * np.eye(3)
    logs, means, models = [], [], []
    for s in arms._SPREADS:
        for model, weight in enumerate(belief.weights):
            mean = s * belief.mean if model == 0 else np.zeros(M * J)
            slope = (*arms._SLOPE_SDS, 0.0)[model] ** 2 * belief.parts.T @ belief.parts
            cov = s**2 * (belief.uninformative if model == 2 else belief.cov + slope) + level
            seen = cov[np.ix_(tried, tried)] + noise
            gain = cov[:, tried] @ np.linalg.inv(seen)
            means.append(centre + mean + gain @ (warped - centre - mean[tried]))
            likelihood = stats.multivariate_normal(mean[tried], seen).logpdf(warped - centre)
            logs.append(likelihood - 0.5 * (np.log(s) / arms._SPREAD_LOG_SD) ** 2 + np.log(weight))
            models.append(model)
    weights = np.exp(np.array(logs) - max(logs))
    weights /= weights.sum()
    now = posterior_arms(belief, tried=tried, values=values.tolist())
    np.testing.assert_allclose(now.mean, weights @ np.array(means), rtol=1e-6, atol=1e-9)
    assert now.trust == pytest.approx(weights[np.array(models) == 0].sum(), rel=1e-6)
    assert now.pattern == pytest.approx(weights[np.array(models) == 1].sum(), rel=1e-6)


def test_first_arm_is_best_on_average_and_posterior_updates() -> None:
    belief = learned(past())
    assert posterior_arms(belief, tried=[], values=[]).gain.argmax() == 1  # first candidate, second setting
    now = posterior_arms(belief, tried=[1, 4], values=[0.5, 0.75])
    assert now.mean[4] > now.mean[1]
    assert (now.gain >= 0).all()
    assert 0 < now.trust + now.pattern < 1


def test_trust_grows_when_the_past_holds_and_goes_when_it_is_reversed() -> None:
    values = past()
    tried = [1, 13, 4, 10]
    found = values[0][tried].tolist()
    true = posterior_arms(learned(values[1:]), tried=tried, values=found)
    wrong = posterior_arms(learned(-values[1:]), tried=tried, values=found)
    before = posterior_arms(learned(values[1:]), tried=[], values=[])
    assert before.trust == pytest.approx(learned(values[1:]).weights[0])
    assert true.trust > before.trust
    assert wrong.trust < 0.75 * before.trust
    assert wrong.pattern > 2 * before.pattern  # differences as learned, with the other sign


def test_how_often_the_past_holds_is_learned() -> None:
    like = learned(past())
    tasks = past().shape[0]
    most = (tasks + arms._WEIGHED * arms._WEIGHTS[0]) / (tasks + arms._WEIGHED)
    assert arms._WEIGHTS[0] < like.weights[0] <= most
    assert sum(like.weights) == pytest.approx(1)
    unlike = learned(np.random.default_rng(0).standard_normal((tasks, M * J)))
    assert unlike.weights[0] < arms._WEIGHTS[0]
    assert learned(past()[:1]).weights == pytest.approx(arms._WEIGHTS)  # nothing to compare with


def test_a_reversed_past_is_used_in_reverse() -> None:
    values = past()
    truth = values[0]
    seen = search(learned(-values[1:]), truth, 5)
    assert truth.max() - truth[seen].max() < 0.02


def test_missing_trials() -> None:
    values = past()
    values[0, :7] = np.nan
    values[1, 3:] = np.nan
    assert np.isfinite(learned(values).mean).all()


def test_one_past_task_and_one_candidate_are_enough() -> None:
    single = learn_arms(
        np.array([[0.1, 0.2, 0.3]]), candidates=np.zeros(3, dtype=np.int64), settings=np.arange(3, dtype=np.int64)
    )
    assert posterior_arms(single, tried=[], values=[]).gain.argmax() == 2
    assert np.isfinite(posterior_arms(single, tried=[2], values=[0.5]).gain).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(-0.3, 0.3))
def test_a_shift_of_all_values_changes_nothing(seed: int, shift: float) -> None:
    values = past(seed)
    tried = [1, 7, 3]
    found = values[0][tried]
    first = posterior_arms(learned(values[1:]), tried=tried, values=found.tolist())
    second = posterior_arms(learned(values[1:] + shift), tried=tried, values=(found + shift).tolist())
    np.testing.assert_allclose(first.mean, second.mean, atol=1e-8)
    np.testing.assert_allclose(first.gain, second.gain, atol=1e-8)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0.01, 1))
def test_warp_keeps_the_order_and_the_best(values: list[float], top: float) -> None:
    array = np.array(values)
    warped = warp(array, best=float(array.max()), top=top)
    assert warped.max() == 0
    order = np.argsort(array, kind="stable")
    assert (np.diff(warped[order]) >= 0).all()
    assert (warped >= array - array.max() - 1e-12).all()


def test_refusals() -> None:
    belief = learned(past())
    with pytest.raises(ValueError, match=r"must lie in 0\.\.14"):
        posterior_arms(belief, tried=[15], values=[0.5])
    with pytest.raises(ValueError, match="finite values"):
        posterior_arms(belief, tried=[1], values=[float("nan")])
    with pytest.raises(ValueError, match=r"values must be \(S, A\)"):
        learned(past()[0])
    with pytest.raises(ValueError, match="two known arms"):
        learned(np.full((2, M * J), np.nan))
