"""hscore.py: the formula over scikit-learn's covariance, and what must not change it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf

from helpers.blobs import blobs
from vlmsel_auto.ranking.evidence.hscore import hscore


def test_hscore_is_the_formula_over_sklearns_ledoit_wolf():
    features, labels = blobs()
    centred = features - features.mean(axis=0)
    fit = LedoitWolf(assume_centered=False).fit(centred)
    means = np.stack([centred[labels == labels[i]].mean(axis=0) for i in range(len(labels))])
    expected = np.trace(np.linalg.pinv(fit.covariance_) @ ((1 - fit.shrinkage_) * np.cov(means, rowvar=False)))
    assert hscore(features, labels) == pytest.approx(expected, rel=1e-9)


def test_separated_classes_score_higher():
    near, labels = blobs(spread=2.0)
    far, _ = blobs(spread=0.2)
    assert hscore(far, labels) > hscore(near, labels)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rotating_features_permuting_images_and_renaming_classes_change_nothing(seed):
    rng = np.random.default_rng(seed)
    features, labels = blobs(seed=seed % 1000)
    rotation, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    order, names = rng.permutation(60), rng.permutation(4)
    value = hscore(features, labels)
    assert hscore(features @ rotation, labels) == pytest.approx(value, rel=1e-6)
    assert hscore(features[order], labels[order]) == pytest.approx(value, rel=1e-6)
    assert hscore(features, names[labels]) == pytest.approx(value, rel=1e-6)


def test_one_label_a_class_says_nothing():
    features, labels = blobs(n=4, classes=4)
    assert math.isnan(hscore(features, labels))
