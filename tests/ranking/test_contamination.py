"""contamination.py: a t statistic of probabilities, its false alarms, and what must not change it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import softmax

from vlmsel_auto.ranking.contamination import Memory, memory

SCALE = 10.0


def cosines(labels: np.ndarray, *, classes: int = 3, gain: float = 0.1, seed: int = 0) -> np.ndarray:
    """The true class stands out by ``gain``."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, (len(labels), classes)) + gain * np.eye(classes)[labels]


def compare(labels: np.ndarray, test_labels: np.ndarray, *, seed: int = 0, gain: float = 0.1) -> Memory:
    return memory(
        cosines(labels, gain=gain, seed=seed), labels, test=cosines(test_labels, seed=seed + 1),
        test_labels=test_labels, logit_scale=SCALE,
    )  # fmt: skip


def test_with_images_of_one_class_it_is_students_t_of_the_probabilities() -> None:
    labels, test_labels = np.ones(20, dtype=int), np.ones(30, dtype=int)
    known, fresh = (
        softmax(SCALE * cosines(each, seed=seed), axis=1)[:, 1] for each, seed in ((labels, 0), (test_labels, 1))
    )
    assert compare(labels, test_labels).z == pytest.approx(stats.ttest_ind(known, fresh).statistic)


def test_chance_is_rarely_taken_for_memory_and_memory_rarely_for_chance() -> None:
    labels, test_labels = np.repeat(np.arange(3), 10), np.repeat(np.arange(3), 30)
    clean = [compare(labels, test_labels, seed=2 * each) for each in range(300)]
    z = np.array([each.z for each in clean])
    assert abs(z.mean()) < 0.2
    assert z.std() == pytest.approx(1.0, abs=0.15)
    assert np.mean([each.shows for each in clean]) <= 0.02
    remembered = [compare(labels, test_labels, seed=2 * each, gain=0.4) for each in range(50)]
    assert np.mean([each.shows for each in remembered]) > 0.9
    assert remembered[0].labelled > 0.9 > remembered[0].test


def test_a_sure_difference_that_matters_to_nobody_is_not_noted() -> None:
    assert Memory(labelled=0.9, test=0.6, z=3.0).shows
    assert not Memory(labelled=0.9, test=0.6, z=2.9).shows
    assert not Memory(labelled=0.92, test=0.90, z=9.0).shows


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_order_names_and_shares_of_classes_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, test_labels = rng.integers(0, 3, 40), rng.integers(0, 3, 50)
    known, fresh = cosines(labels, seed=seed), cosines(test_labels, seed=seed + 1)
    first = memory(known, labels, test=fresh, test_labels=test_labels, logit_scale=SCALE)
    names, order = rng.permutation(3), rng.permutation(40)
    back = np.argsort(names)
    second = memory(
        known[order][:, back], names[labels[order]], test=fresh[:, back], test_labels=names[test_labels],
        logit_scale=SCALE,
    )  # fmt: skip
    assert (second.labelled, second.test) == pytest.approx((first.labelled, first.test))
    assert second.z == pytest.approx(first.z)


def test_classes_of_unlike_difficulty_and_shares_are_no_memory() -> None:
    labels, test_labels = np.repeat([0, 1], [90, 10]), np.repeat([0, 1], [10, 90])
    hard = np.array([0.4, -0.4])  # the first class is easy, the second hard
    known, fresh = (
        cosines(each, classes=2, seed=seed) + (hard[each][:, None]) * np.eye(2)[each]
        for each, seed in ((labels, 0), (test_labels, 1))
    )
    found = memory(known, labels, test=fresh, test_labels=test_labels, logit_scale=SCALE)
    assert abs(found.z) < 2.5
    assert abs(found.labelled - found.test) < 0.2  # all images together: 90 points


def test_what_is_remembered_shows_where_the_labelled_images_are_of_the_harder_classes() -> None:
    labels, test_labels = np.repeat([0, 1], [200, 1800]), np.repeat([0, 1], [1800, 200])
    rng = np.random.default_rng(0)
    known, fresh = (
        0.1 * np.where(rng.random(len(names)) < np.array(rates)[names], 1, -1)[:, None] * (2 * np.eye(2)[names] - 1)
        for names, rates in ((labels, (0.99, 0.8)), (test_labels, (0.99, 0.6)))
    )
    found = memory(known, labels, test=fresh, test_labels=test_labels, logit_scale=SCALE)
    assert found.labelled == pytest.approx(0.895, abs=0.03)  # both classes count alike: 200 and 1,800 of each
    assert found.test == pytest.approx(0.795, abs=0.03)
    assert found.shows


def test_nothing_to_compare() -> None:
    labels = np.array([0, 1])
    for other in (np.array([2, 2]), np.array([], dtype=int), labels):
        assert memory(
            cosines(labels), labels, test=cosines(other), test_labels=other, logit_scale=SCALE
        ) is None  # fmt: skip
