"""Consensus of candidates that name classes without labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.ranking.evidence.consensus import consensus, likeness


def by_hand(predicted, margins, n_classes):
    """The definition, image by image."""
    z = (margins - margins.mean()) / margins.std()
    weight = np.exp(3.0 * z)
    found = []
    for m in range(len(predicted)):
        right = 0
        for x in range(predicted.shape[1]):
            votes = np.zeros(n_classes)
            for other in range(len(predicted)):
                if other != m:
                    votes[predicted[other, x]] += weight[other]
            own = votes[predicted[m, x]]
            right += own > np.delete(votes, predicted[m, x]).max() * (1 + 1e-9)
        found.append(right / predicted.shape[1])
    return np.array(found)


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_it_is_the_share_of_images_on_which_the_others_agree(n_classes):
    rng = np.random.default_rng(n_classes)
    predicted = rng.integers(n_classes, size=(7, 40))
    margins = rng.random(7)
    np.testing.assert_allclose(
        consensus(predicted, margins, n_classes=n_classes), by_hand(predicted, margins, n_classes)
    )


@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5), factor=st.floats(0.01, 100))
def test_neither_order_of_images_nor_unit_of_margins_matters(seed, shift, factor):
    rng = np.random.default_rng(seed)
    predicted, margins = rng.integers(4, size=(6, 30)), rng.random(6)
    found = consensus(predicted, margins, n_classes=4)
    np.testing.assert_allclose(consensus(predicted[:, rng.permutation(30)], margins, n_classes=4), found)
    np.testing.assert_allclose(consensus(predicted, shift + factor * margins, n_classes=4), found)
    order = rng.permutation(6)
    np.testing.assert_allclose(consensus(predicted[order], margins[order], n_classes=4), found[order])


def test_two_candidates_or_no_image_say_nothing():
    assert np.isnan(consensus(np.zeros((2, 9), dtype=int), np.ones(2), n_classes=3)).all()
    assert np.isnan(consensus(np.zeros((5, 0), dtype=int), np.ones(5), n_classes=3)).all()


def test_unknown_or_equal_margins_vote_alike():
    predicted = np.array([[0, 1, 1], [0, 1, 0], [0, 1, 2]])
    for margins in (np.full(3, np.nan), np.full(3, 0.1)):
        np.testing.assert_allclose(consensus(predicted, margins, n_classes=3), [2 / 3, 2 / 3, 2 / 3])


def a_zoo(seed, *, m=8, n=60, k=4):
    rng = np.random.default_rng(seed)
    cosines = rng.normal(size=(m, n, k)) + np.linspace(0, 2, m)[:, None, None] * np.eye(k)[rng.integers(k, size=n)]
    return [*cosines], rng.random(m)


def said(cosines, margins):
    predicted = np.stack([one.argmax(axis=1) for one in cosines])
    return consensus(predicted, margins, n_classes=cosines[0].shape[1], alike=likeness(cosines))


@pytest.mark.parametrize("seed", range(4))
def test_copies_of_everyone_change_nothing(seed):
    cosines, margins = a_zoo(seed)
    np.testing.assert_allclose(said(cosines * 3, np.tile(margins, 3))[:8], said(cosines, margins))


def test_copies_of_one_do_not_outvote_the_others():
    """Ten copies of one that is always wrong would make all of each other, and nothing of those that are right."""
    truth = np.arange(80) % 4
    rng = np.random.default_rng(0)
    right = [np.eye(4)[truth] + rng.normal(0, 0.35, (80, 4)) for _ in range(4)]
    wrong = np.eye(4)[(truth + 1) % 4] + rng.normal(0, 0.1, (80, 4))
    every = [*right, *[wrong] * 10]
    margins = np.ones(14)
    assert said(every, margins)[:4].min() > 0.75
    assert said(every, margins)[4:].max() < 0.1
    plain = consensus(np.stack([one.argmax(axis=1) for one in every]), margins, n_classes=4)
    assert plain[:4].max() < 0.1
    assert plain[4:].min() > 0.9


def test_likeness_knows_copies_whatever_their_scale_and_favourite_class():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 300, 5))
    found = likeness([first, 20 * first + rng.normal(size=5), first + 0.1 * rng.normal(size=(300, 5)), second, -first])
    assert found[0, 1] == pytest.approx(1.0)
    assert 0.9 < found[0, 2] < 1.0
    assert found[0, 3] < 0.01
    assert found[0, 4] == 0.0
    np.testing.assert_array_equal(np.diag(found), 1.0)
    np.testing.assert_allclose(found, found.T)


def test_likeness_of_two_correlated_candidates_is_the_fourth_power():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 40, 3))  # fewer images than are compared: all of them
    centred = [one - one.mean(axis=1, keepdims=True) for one in (first, first + second)]
    a, b = ((one - one.mean(axis=0)).ravel() for one in centred)
    assert likeness([first, first + second])[0, 1] == pytest.approx(np.corrcoef(a, b)[0, 1] ** 4)


def test_copies_alone_tell_nothing_of_each_other():
    rng = np.random.default_rng(0)
    predicted, margins = np.tile(rng.integers(3, size=40), (3, 1)), np.array([0.1, 0.2, 0.3])
    alike = np.clip(np.ones((3, 3)) - 1e-15 * rng.random((3, 3)), 0.0, 1.0)  # as rounding leaves it
    assert np.isnan(consensus(predicted, margins, n_classes=3, alike=alike)).all()
