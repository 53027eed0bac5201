from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel

from helpers.published_world import CANDIDATES, KNOWN, LEVEL_SD, PLAIN, look
from vlmsel_auto.planning.screening_posterior import ScreeningPolicy, mixture, screening_posterior


class Given(Kernel):
    """A kernel matrix over indices."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, X, Y=None, eval_gradient=False):  # noqa: FBT002 - scikit-learn's signature
        rows = X[:, 0].astype(int)
        return self.matrix[np.ix_(rows, rows if Y is None else Y[:, 0].astype(int))]

    def diag(self, X):
        return np.diag(self.matrix)[X[:, 0].astype(int)]

    def is_stationary(self):
        return False


def test_one_component_and_spread_is_gaussian_process_regression():
    screenings = [look(0, 0.62, 0.03), look(5, 0.48, 0.05), look(7, 0.55, 0.02)]
    prior = KNOWN.level + KNOWN.mean
    places = np.array([[each.candidate] for each in screenings])
    process = GaussianProcessRegressor(
        Given(KNOWN.cov + LEVEL_SD**2), alpha=np.array([each.sd**2 for each in screenings]), optimizer=None
    )
    process.fit(places, np.array([each.accuracy for each in screenings]) - prior[places[:, 0]])
    mean, sd = process.predict(np.arange(CANDIDATES)[:, None], return_std=True)
    found = screening_posterior(KNOWN, screenings, policy=PLAIN)
    np.testing.assert_allclose(found.mean, prior + mean, atol=1e-8)
    np.testing.assert_allclose(found.sd, sd, atol=1e-8)


def test_components_and_spreads_are_weighed_by_their_likelihoods():
    policy = ScreeningPolicy(cover_every=0, p_reversed=0.2, p_uninformative=0.3, spreads=(0.5, 2.0), spread_log_sd=0.7)
    screenings = [look(0, 0.45), look(11, 0.6), look(4, 0.5)]
    rows = [each.candidate for each in screenings]
    values, noise = [each.accuracy for each in screenings], np.diag([each.sd**2 for each in screenings])
    variance = np.mean(KNOWN.mean**2 + np.diag(KNOWN.cov))
    components = [
        (0.5, KNOWN.mean, KNOWN.cov),
        (0.2, -KNOWN.mean, KNOWN.cov),
        (0.3, np.zeros(CANDIDATES), variance * np.eye(CANDIDATES)),
    ]
    weights = np.zeros(3)
    for place, (share, mean, cov) in enumerate(components):
        for spread in policy.spreads:
            kernel = spread**2 * cov + (policy.level_width * KNOWN.level_sd) ** 2
            density = stats.multivariate_normal(KNOWN.level + spread * mean[rows], kernel[np.ix_(rows, rows)] + noise)
            weights[place] += share * stats.norm.pdf(np.log(spread), scale=0.7) * density.pdf(values)
    found = mixture(KNOWN, screenings, policy).weights.reshape(3, 2).sum(axis=1)
    np.testing.assert_allclose(found, weights / weights.sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, CANDIDATES - 1), st.floats(0.05, 0.95))
def test_a_screening_without_noise_pins_the_value_and_more_noise_moves_less(candidate: int, value: float):
    pinned = screening_posterior(KNOWN, [look(candidate, value, 0.0)])
    assert pinned.mean[candidate] == pytest.approx(value, abs=1e-6)
    assert pinned.sd[candidate] < 1e-5
    before = screening_posterior(KNOWN, [], policy=PLAIN).mean
    moves = [
        np.abs(screening_posterior(KNOWN, [look(candidate, value, sd)], policy=PLAIN).mean - before)
        for sd in (0.0, 0.02, 0.1, 0.5)
    ]
    assert all(np.all(less <= more + 1e-12) for more, less in pairwise(moves))


def test_a_disappointment_lowers_its_family_most():
    screenings = [look(1, 0.6), look(2, 0.6), look(0, 0.45)]  # 3, 6 and 9 are of the family of 0
    now, before = screening_posterior(KNOWN, screenings).mean, screening_posterior(KNOWN, screenings[:2]).mean
    fall = before - now
    assert fall[[3, 6, 9]].min() > fall[[4, 5, 7, 8]].max()
