"""The logarithmic pool against its formula, and its fitted weights against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from vlmsel_auto.models.pooling import LEAST_LOG, fit_weights, log_probabilities, pool


def members(rng: np.random.Generator, *, count: int, images: int, classes: int) -> list[np.ndarray]:
    return [log_probabilities(rng.normal(0, 2, (images, classes))) for _ in range(count)]


def test_a_pool_multiplies_powers_of_probabilities() -> None:
    first, second = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.3, 0.6]])
    product = first**0.5 * second**2.0
    found = pool([np.log(first), np.log(second)], [0.5, 2.0])
    assert np.allclose(np.exp(found), product / product.sum())


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 3.0))
def test_one_member_is_a_temperature_and_levels_do_not_matter(seed: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (5, 4))
    logs = log_probabilities(logits)
    assert np.allclose(pool([logs], [weight]), log_softmax(weight * logits, axis=1))
    assert np.allclose(log_probabilities(logits + rng.normal(0, 5, (5, 1))), logs)


def test_no_member_excludes_a_class() -> None:
    assert log_probabilities(np.array([[0.0, 1e4]]))[0, 0] == LEAST_LOG


@pytest.mark.parametrize("shrinkage", [0.05, 1.0, 20.0])
def test_two_classes_are_logistic_regression(shrinkage: float) -> None:
    rng = np.random.default_rng(0)
    logs = members(rng, count=2, images=300, classes=2)
    scores = np.stack([each[:, 1] - each[:, 0] for each in logs], axis=1)
    labels = (rng.random(300) < 1 / (1 + np.exp(-scores @ [0.8, 0.3]))).astype(np.int64)
    oracle = LogisticRegression(C=1 / (2 * shrinkage), fit_intercept=False, tol=1e-10).fit(scores, labels).coef_[0]
    assert np.allclose(fit_weights(logs, labels, start=[0.0, 0.0], shrinkage=shrinkage), oracle, atol=1e-4)


def test_a_member_that_is_wrong_gets_nothing_and_one_that_says_nothing_stays() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    right = np.eye(3)[labels] * 2 + rng.normal(0, 1, (200, 3))
    logs = [log_probabilities(each) for each in (right, -right, np.zeros((200, 3)))]
    weights = fit_weights(logs, labels, start=[1.0, 0.5, 0.3], shrinkage=0.5)
    assert weights[0] > 0.5
    assert weights[1] == 0.0
    assert weights[2] == pytest.approx(0.3, abs=1e-4)


def test_the_stronger_the_shrinkage_the_nearer_the_start() -> None:
    rng = np.random.default_rng(2)
    logs, labels = members(rng, count=2, images=50, classes=4), rng.integers(0, 4, 50)
    start = np.array([1.0, 0.3])
    away = [np.abs(fit_weights(logs, labels, start=start, shrinkage=each) - start).sum() for each in (0.1, 10.0, 1e4)]
    assert away[0] > away[1] > away[2]
    assert away[2] < 0.01


def test_what_does_not_fit_together_is_refused() -> None:
    logs = members(np.random.default_rng(3), count=2, images=5, classes=3)
    with pytest.raises(ValueError, match="weight for each member"):
        pool(logs, [1.0])
    with pytest.raises(ValueError, match="weight for each member"):
        pool([], [])
    for labels, start in (([0, 1], [1.0, 1.0]), ([0, 1, 2, 0, 1], [1.0])):
        with pytest.raises(ValueError, match="each member for each label"):
            fit_weights(logs, np.array(labels), start=start, shrinkage=1.0)
