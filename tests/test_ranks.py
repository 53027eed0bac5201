import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from helpers.planning_world import candidate
from vlmsel_auto.ranks import error_correlation, simulate_ranks


def test_error_correlation_is_a_correlation() -> None:
    kin = [candidate(0, "vit", "a"), candidate(1, "vit", "b"), candidate(2, "rn", "a"), candidate(3, "cnn", "c")]
    matrix = error_correlation(kin)
    assert np.allclose(np.diag(matrix), 1)
    assert np.linalg.eigvalsh(matrix).min() > 0
    assert matrix[0, 1] > matrix[0, 2] > matrix[0, 3] == 0


def test_of_two_the_chance_is_that_of_their_difference() -> None:
    cov = np.array([[0.04, 0.03], [0.03, 0.09]])
    found = simulate_ranks(np.array([0.6, 0.5]), cov, draws=100_000)
    assert found.p_best[0] == pytest.approx(ndtr(0.1 / np.sqrt(0.04 + 0.09 - 2 * 0.03)), abs=0.005)
    assert found.p_best.sum() == pytest.approx(1)
    assert found.p_top5.tolist() == [1.0, 1.0]
    assert (found.low.tolist(), found.high.tolist()) == ([1.0, 1.0], [2.0, 2.0])


def test_errors_in_common_do_not_change_the_order() -> None:
    mean = np.linspace(1, 0, 8)
    found = simulate_ranks(mean, np.ones((8, 8)) + 1e-6 * np.eye(8))
    assert found.p_best.tolist() == [1.0] + [0.0] * 7
    assert found.low.tolist() == found.high.tolist() == list(range(1, 9))


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=9), st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_chances_are_probabilities_and_follow_a_permutation(values: list[float], seed: int) -> None:
    mean = np.array(values)
    found = simulate_ranks(mean, np.eye(len(mean)), seed=seed, draws=512)
    assert found.p_best.sum() == pytest.approx(1)
    assert found.p_top5.sum() == pytest.approx(min(5, len(mean)))
    assert (found.low <= found.high).all()
    assert (found.p_best <= found.p_top5).all()
