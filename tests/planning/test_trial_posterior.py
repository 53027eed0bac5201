import numpy as np
import pytest

from helpers.planning_world import CANDIDATES, SCORES, N, candidate, ranking
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.planning.trial_posterior import (
    Observation,
    TrialPrior,
    acquisition,
    expected_improvement,
    slopes_of,
    trial_posterior,
    trial_prior,
    worth_of_measuring,
)


def test_without_trials_the_posterior_keeps_the_order() -> None:
    belief = trial_prior(ranking(SCORES), candidates=CANDIDATES)
    now = trial_posterior(belief, [], gains=(0.0, 0.03))
    assert list(np.argsort(-now.mean[:, 0])) == list(range(N))
    assert np.allclose(now.mean[:, 1] - now.mean[:, 0], 0.03)


def test_a_ranking_that_every_trial_contradicts_is_turned_round() -> None:
    belief = trial_prior(ranking(SCORES), candidates=CANDIDATES)
    reverse = [Observation(candidate=m, method=0, value=0.4 + 0.08 * m) for m in range(4)]
    assert np.argmax(trial_posterior(belief, reverse).mean[:, 0]) == N - 1
    for values in ([0.64, 0.56, 0.48, 0.40], [0.55, 0.62, 0.50, 0.45], [0.50, 0.50, 0.50, 0.50]):
        agreeing = [Observation(candidate=m, method=0, value=value) for m, value in enumerate(values)]
        mean = trial_posterior(belief, agreeing).mean[:, 0]
        assert np.all(np.diff(mean[4:]) < 0), values  # those that were not tried stay in the ranking's order


def test_a_disappointment_lowers_its_kin() -> None:
    kin = [candidate(0, "vit"), candidate(1, "vit"), candidate(2, "rn"), candidate(3, "cnn")]
    belief = trial_prior(ranking([1.0, 0.8, 0.8, -1.0], sd=1.0), candidates=kin)
    seen = [Observation(candidate=3, method=0, value=0.60)]
    before = trial_posterior(belief, seen).mean[:, 0]
    after = trial_posterior(belief, [*seen, Observation(candidate=0, method=0, value=0.55)]).mean[:, 0]
    assert before[1] == pytest.approx(before[2])
    assert after[1] < after[2]


def test_it_is_the_mixture_over_spreads_of_plain_gaussian_conditioning() -> None:
    rng = np.random.default_rng(0)
    size, gains, seen = 4, (0.0, 0.03), [(0, 0, 0.7, 0.0), (2, 0, 0.5, 0.02), (2, 1, 0.6, 0.0), (3, 1, 0.8, 0.01)]
    root = rng.normal(size=(size, size))
    belief = TrialPrior(candidates=tuple("abcd"), mean=rng.normal(size=size), cov=root @ root.T + np.eye(size))
    method, arm = np.repeat([0, 1], size), np.tile(np.arange(size), 2)  # of the 8 arms
    same = method[:, None] == method[None]
    places = [m + size * j for m, j, *_ in seen]
    values, noise = np.array([each[2] for each in seen]), np.array([POLICY.noise_sd**2 + each[3] ** 2 for each in seen])
    means, covs, chances = [], [], []
    for s in slopes_of(POLICY):
        own = (POLICY.arm_share * s) ** 2 * np.eye(2 * size)
        cov = s**2 * belief.cov[np.ix_(arm, arm)] + 1.0 + same * POLICY.method_sd**2 + own
        mean = 0.5 + s * belief.mean[arm] + np.array(gains)[method]
        observed = cov[np.ix_(places, places)] + np.diag(noise)
        gain = cov[:, places] @ np.linalg.inv(observed)
        means.append(mean + gain @ (values - mean[places]))
        covs.append(cov - gain @ cov[places])
        prior = -0.5 * (np.log(abs(s) / POLICY.typical_spread)) ** 2
        away = values - mean[places]
        fit = -0.5 * (away @ np.linalg.solve(observed, away) + np.linalg.slogdet(observed)[1])
        chances.append(prior + fit + np.log(1 - POLICY.reversed_order if s > 0 else POLICY.reversed_order))
    weights = np.exp(np.array(chances) - max(chances))
    weights /= weights.sum()
    mean = weights @ np.array(means)
    spread = sum(w * (c + np.outer(m - mean, m - mean)) for w, m, c in zip(weights, means, covs, strict=True))
    now = trial_posterior(
        belief, [Observation(candidate=m, method=j, value=v, sd=sd) for m, j, v, sd in seen], gains=gains
    )
    assert np.allclose(now.mean, mean.reshape(2, size).T)
    assert np.allclose(now.cov, [spread[:size, :size], spread[size:, size:]])


def test_expected_improvement_is_the_mean_of_draws() -> None:
    draws = 0.3 + 0.1 * np.random.default_rng(0).standard_normal(400_000)
    expected = np.maximum(draws - 0.35, 0).mean()
    found = expected_improvement(np.array([0.3]), np.array([0.1]), best=0.35)
    assert found[0] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("mean", [0.6, 0.64])
def test_what_a_measurement_is_worth_is_the_mean_of_draws(mean: float) -> None:
    sd, noise, other, rng = 0.03, 0.05, 0.62, np.random.default_rng(0)
    truth = mean + sd * rng.standard_normal(400_000)
    seen = truth + noise * rng.standard_normal(len(truth))
    believed = mean + sd**2 / (sd**2 + noise**2) * (seen - mean)
    gained = np.where(believed > other, truth, other).mean() - max(mean, other)
    assert worth_of_measuring(mean, sd, other=other, error=noise) == pytest.approx(gained, rel=0.05)


def test_a_sure_belief_is_not_worth_a_measurement() -> None:
    assert worth_of_measuring(0.7, 0.0, other=0.6, error=0.1) == 0.0
    assert worth_of_measuring(0.7, 0.0, other=0.7, error=0.0) == pytest.approx(0.0, abs=1e-10)


def test_fewer_images_promise_less_choice() -> None:
    gains = [acquisition(0.6, 0.05, best=0.62, reached=None, tries=0, error=error) for error in (0.0, 0.05, 0.2)]
    assert gains[0] > gains[1] > gains[2]
    plain = expected_improvement(np.array([0.6]), np.array([0.05]), best=0.62)[0]
    assert gains[0] == pytest.approx(plain, abs=1e-6)
    again = acquisition(0.6, 0.05, best=0.62, reached=None, tries=2)
    assert again == pytest.approx(gains[0] * POLICY.repeat**2)  # two that gave nothing
    settings = [acquisition(0.6, 0.05, best=0.62, reached=0.62, tries=1, error=error) for error in (0.01, 0.1)]
    assert settings[0] > POLICY.least_gain > 10 * settings[1]


def test_belief_refusals() -> None:
    with pytest.raises(ValueError, match="distinct"):
        trial_prior(ranking(SCORES), candidates=[CANDIDATES[0], CANDIDATES[0]])
