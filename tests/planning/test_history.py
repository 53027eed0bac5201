import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, log_loss

from vlmsel_auto.planning.history import soft_shift, weigh
from vlmsel_auto.tuning.data import measure

metrics = st.floats(0, 1)
sizes = st.integers(1, 5_000)


def test_the_error_of_a_metric_is_part_of_the_binomial_variance() -> None:
    exact = stats.beta(1 + 32, 1 + 8).std()  # of the share of right images, 32 of 40 being right
    assert weigh(0.8, None, images=40).sd == pytest.approx(np.sqrt(0.6) * exact, rel=1e-9)
    assert 0 < weigh(1.0, None, images=40).sd < weigh(0.8, None, images=40).sd
    for soft in (None, 0.7):
        exactly = weigh(0.8, soft, images=None)
        assert (exactly.value, exactly.sd) == (0.8, 0.0)


def test_weights_are_those_of_generalised_least_squares() -> None:
    own = 0.6 * stats.beta(1 + 80, 1 + 20).var()
    covariance = np.array([[own, 0.53 * own], [0.53 * own, 0.4 * own + 0.03**2]])
    inverse = np.linalg.inv(covariance)
    weights = inverse.sum(axis=0) / inverse.sum()
    found = weigh(0.8, 0.6, images=100)
    assert found.value == pytest.approx(weights @ [0.8, 0.6], rel=1e-9)
    assert found.sd == pytest.approx(np.sqrt(1 / inverse.sum()), rel=1e-9)


def test_few_images_leave_the_word_to_the_soft_metric_and_many_take_it() -> None:
    values = [weigh(0.8, 0.7, images=images).value for images in (20, 100, 400, 40_000)]
    assert values == sorted(values)
    assert values[0] < 0.73
    assert values[-1] > 0.799


@given(metrics, metrics, sizes)
def test_both_together_lie_between_and_know_more(metric: float, soft: float, images: int) -> None:
    both, alone = weigh(metric, soft, images=images), weigh(metric, None, images=images)
    assert min(metric, soft) - 1e-12 <= both.value <= max(metric, soft) + 1e-12
    assert 0 < both.sd <= alone.sd + 1e-12


@given(metrics, metrics, sizes)
def test_one_trial_is_left_as_it_is(metric: float, soft: float, images: int) -> None:
    shifted = soft + soft_shift([(metric, soft), (0.5, None)])
    assert weigh(metric, shifted, images=images).value == pytest.approx(metric, abs=1e-12)


def test_no_soft_metric_no_shift() -> None:
    assert soft_shift([]) == soft_shift([(0.7, None)]) == 0.0


def test_measured_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logits, labels = (
        torch.from_numpy(rng.normal(size=(60, 4))).float() * 3,
        rng.choice(4, size=60, p=[0.6, 0.2, 0.1, 0.1]),
    )
    probabilities = logits.double().softmax(dim=1).numpy()
    true = probabilities[np.arange(60), labels]
    plain = measure("accuracy", logits=logits, labels=torch.from_numpy(labels))
    assert plain.metric == (probabilities.argmax(axis=1) == labels).mean()
    assert plain.soft == pytest.approx(true.mean(), rel=1e-6)
    assert plain.loss == pytest.approx(log_loss(labels, probabilities), rel=1e-5)
    assert plain.order == (plain.metric, -plain.loss)
    balanced = measure("balanced_accuracy", logits=logits, labels=torch.from_numpy(labels))
    assert balanced.metric == pytest.approx(balanced_accuracy_score(labels, probabilities.argmax(axis=1)), rel=1e-12)
    assert balanced.soft == pytest.approx(np.mean([true[labels == k].mean() for k in range(4)]), rel=1e-6)
    sure = measure("accuracy", logits=1e4 * logits, labels=torch.from_numpy(labels))
    assert sure.soft == pytest.approx(sure.metric, abs=1e-6)  # a classifier that never doubts
