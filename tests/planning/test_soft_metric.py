import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vlmsel_auto.planning.soft_metric import soft_shift, weigh

metrics = st.floats(0, 1)


sizes = st.integers(1, 5_000)


def test_the_error_of_a_metric_is_part_of_the_binomial_variance() -> None:
    exact = stats.binom(40, 0.8).std() / 40
    assert weigh(0.8, None, images=40, level=0.8).sd == pytest.approx(np.sqrt(0.6) * exact, rel=1e-9)
    assert 0 < weigh(1.0, None, images=40).sd < weigh(0.8, None, images=40, level=0.8).sd
    for soft in (None, 0.7):
        exactly = weigh(0.8, soft, images=None)
        assert (exactly.mean, exactly.sd) == (0.8, 0.0)


def test_weights_are_those_of_generalised_least_squares() -> None:
    own = 0.6 * stats.binom(100, 0.8).var() / 100**2
    covariance = np.array([[own, 0.53 * own], [0.53 * own, 0.4 * own + 0.03**2]])
    inverse = np.linalg.inv(covariance)
    weights = inverse.sum(axis=0) / inverse.sum()
    found = weigh(0.8, 0.6, images=100, level=0.8)
    assert found.mean == pytest.approx(weights @ [0.8, 0.6], rel=1e-9)
    assert found.sd == pytest.approx(np.sqrt(1 / inverse.sum()), rel=1e-9)


@given(metrics, metrics, sizes)
def test_both_together_lie_between_and_know_more(metric: float, soft: float, images: int) -> None:
    both, alone = weigh(metric, soft, images=images), weigh(metric, None, images=images)
    assert min(metric, soft) - 1e-12 <= both.mean <= max(metric, soft) + 1e-12
    assert 0 < both.sd <= alone.sd + 1e-12


@given(metrics, metrics, sizes)
def test_one_trial_is_left_as_it_is(metric: float, soft: float, images: int) -> None:
    shifted = soft + soft_shift([(metric, soft), (0.5, None)])
    assert weigh(metric, shifted, images=images).mean == pytest.approx(metric, abs=1e-12)


def test_no_soft_metric_no_shift() -> None:
    assert soft_shift([]) == soft_shift([(0.7, None)]) == 0.0


def test_beside_a_known_level_the_lucky_are_no_surer_than_the_others() -> None:
    lucky, unlucky = (weigh(metric, None, images=13, level=0.9).sd for metric in (1.0, 0.8))
    assert lucky == pytest.approx(np.sqrt(0.6 * (31 / 33) * (2 / 33) / 13), rel=1e-9)  # (13 + 18) of 33 are right
    assert unlucky > lucky > weigh(1.0, None, images=13, level=1.0).sd
    many = weigh(0.8, None, images=10**6, level=0.5).sd
    assert many == pytest.approx(np.sqrt(0.6 * 0.8 * 0.2 / 10**6), rel=1e-3)  # its own metric is known well enough
