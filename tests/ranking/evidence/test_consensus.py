"""Consensus of candidates that name classes without labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.ranking.evidence.consensus import consensus


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


def test_candidates_that_are_right_more_often_agree_more():
    rng = np.random.default_rng(0)
    truth = rng.integers(5, size=400)
    accuracy = np.linspace(0.2, 0.9, 12)
    wrong = rng.integers(5, size=(12, 400))
    predicted = np.where(rng.random((12, 400)) < accuracy[:, None], truth, wrong)
    margins = accuracy + rng.normal(0, 0.1, 12)
    found = consensus(predicted, margins, n_classes=5)
    assert np.corrcoef(found, accuracy)[0, 1] > 0.97


def test_clear_candidates_outvote_a_majority_at_chance():
    """Nine candidates name class 0 whatever they see; two clear ones see the truth and agree."""
    truth = np.tile([0, 1, 2, 3], 25)
    predicted = np.vstack([np.zeros((9, 100), dtype=int), truth, truth])
    margins = np.array([0.1] * 9 + [1.0, 1.0])
    found = consensus(predicted, margins, n_classes=4)
    np.testing.assert_allclose(found[9:], 1.0)
    np.testing.assert_allclose(found[:9], 0.25)


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
