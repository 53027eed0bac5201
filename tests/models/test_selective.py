"""What held-out images assure above which probability, against a brute-force count and SciPy's exact test."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import binomtest

from vlmsel_auto.errors import InputError
from vlmsel_auto.models.selective import answer_levels, find_level, level_for
from vlmsel_auto.records import AnswerLevel


def drawn(images: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of three classes that come true about as often as they say."""
    rng = np.random.default_rng(seed)
    logs = log_softmax(rng.normal(scale=3.0, size=(images, 3)), axis=1)
    return logs, np.array([rng.choice(3, p=np.exp(each)) for each in logs])


def test_levels_count_the_images_above_a_threshold_and_bound_their_accuracy() -> None:
    logs, labels = drawn(60)
    logs[7] = logs[3]  # equal probabilities are one level
    levels = answer_levels(logs, labels)
    highest, right = np.exp(logs.max(axis=1)), logs.argmax(axis=1) == labels
    assert len(levels) == 59
    for one in levels:
        there = highest >= one.threshold
        assert (one.images, one.right, one.coverage) == (there.sum(), right[there].sum(), there.mean())
        exact = binomtest(one.right, one.images, alternative="greater").proportion_ci(0.9, method="exact").low
        assert one.at_least == pytest.approx(exact)
    assert levels[-1].coverage == 1.0


def test_of_many_images_a_hundred_levels_are_kept_and_none_give_none() -> None:
    levels = answer_levels(*drawn(2_000))
    assert len(levels) == 100
    assert levels[-1].images == 2_000
    assert answer_levels(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == ()


def test_the_level_with_the_most_answers_that_assures_enough() -> None:
    levels = answer_levels(*drawn(400))
    found = level_for(levels, 0.9)
    assert found.at_least >= 0.9
    assert all(one.at_least < 0.9 for one in levels if one.coverage > found.coverage)
    assert found is find_level(levels, 0.9)


def test_promises_are_kept_as_often_as_they_say() -> None:
    """Of new draws of the same kind at most about a tenth are less accurate than was assured."""
    logs, labels = drawn(20_000, seed=1)
    highest, right = np.exp(logs.max(axis=1)), logs.argmax(axis=1) == labels
    kept = []
    for seed in range(200):
        level = find_level(answer_levels(*drawn(160, seed=seed + 2)), 0.9)
        if level is not None:
            kept.append(right[highest >= level.threshold].mean() >= 0.9)
    assert len(kept) > 150
    assert np.mean(kept) > 0.85


def test_what_cannot_be_assured_is_refused_with_what_can() -> None:
    few = (AnswerLevel(threshold=0.9, coverage=0.5, images=10, right=10, at_least=0.79),)
    with pytest.raises(InputError, match=r"10 held-out images assure 79\.0 % at most.* 50 % .* got an accuracy of 95"):
        level_for(few, 0.95)
    with pytest.raises(InputError, match="knows of no held-out images"):
        level_for((), 0.95)
