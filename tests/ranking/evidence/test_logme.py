"""logme.py: the Gaussian marginal likelihood."""

import numpy as np
import pytest
from scipy import stats

from helpers.blobs import blobs
from vlmsel_auto.ranking.evidence.logme import logme


def marginal_log_likelihood(features, target, a, b):
    covariance = np.eye(len(target)) / b + features @ features.T / a
    return stats.multivariate_normal(mean=np.zeros(len(target)), cov=covariance).logpdf(target) / len(target)


@pytest.mark.parametrize(("n", "d"), [(60, 12), (30, 80)])
def test_logme_is_the_gaussian_marginal_likelihood_at_its_maximum(n, d):
    features, labels = blobs(n=n, d=d)
    best = []
    for c in range(4):
        target = (labels == c).astype(float)
        grid = [
            marginal_log_likelihood(features, target, a, b)
            for a in np.geomspace(1, 1e4, 20)
            for b in np.geomspace(1, 1e3, 20)
        ]
        best.append(max(grid))
    assert logme(features, labels) == pytest.approx(np.mean(best), abs=0.02)


def test_logme_small_sample_form_agrees_when_columns_of_zeros_are_added():
    features, labels = blobs(n=20, d=12)
    wide = np.hstack([features, np.zeros((20, 500))])
    assert logme(wide, labels) == pytest.approx(logme(features, labels), abs=1e-9)
