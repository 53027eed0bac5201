import numpy as np
import pytest
from scipy.stats import multivariate_normal

from vlmsel_auto.planning.gaussian import Gaussians, given


def test_moments_and_evidence_are_those_of_the_joint_normal() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(2, 5, 5))
    prior = Gaussians(mean=rng.normal(size=(2, 5)), cov=root @ np.swapaxes(root, 1, 2), logs=np.log([0.3, 0.7]))
    seen, values, noise = np.array([3, 1, 3]), np.array([0.2, -0.4, 0.5]), np.array([0.1, 0.2, 0.3])
    after = given(prior, seen=seen, values=values, noise=noise)
    evidence = []
    for case in range(2):
        mean, cov = prior.mean[case], prior.cov[case]
        observed = cov[np.ix_(seen, seen)] + np.diag(noise)
        gain = cov[:, seen] @ np.linalg.inv(observed)
        assert after.mean[case] == pytest.approx(mean + gain @ (values - mean[seen]))
        assert after.cov[case] == pytest.approx(cov - gain @ cov[seen])
        assert after.variance[case] == pytest.approx(np.diag(after.cov[case]))
        evidence.append(np.exp(prior.logs[case]) * multivariate_normal(mean[seen], observed).pdf(values))
    assert after.weights == pytest.approx(np.array(evidence) / sum(evidence))


def test_nothing_seen_changes_nothing() -> None:
    prior = Gaussians(mean=np.zeros((1, 2)), cov=np.eye(2)[None], logs=np.zeros(1))
    none = np.zeros(0)
    after = given(prior, seen=none.astype(np.int64), values=none, noise=none)
    assert np.array_equal(after.mean, prior.mean)
    assert np.array_equal(after.cov, prior.cov)
    assert after.weights == pytest.approx([1.0])
