"""linear.py: scikit-learn's ridge."""

import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from helpers.blobs import blobs, texts_and_images
from vlmsel_auto.ranking.evidence.likelihood import fitted_log_likelihood
from vlmsel_auto.ranking.evidence.linear import ridge, ridge_log_likelihood
from vlmsel_auto.ranking.evidence.zeroshot import cosines, zeroshot
from vlmsel_auto.ranking.scaling import unit_rows


def test_ridge_starts_from_the_class_texts():
    features, labels, texts = texts_and_images(n=6, spread=0.4)
    assert ridge(features, labels, text_features=texts, penalty=1e6) == zeroshot(cosines(features, texts), labels)


def test_ridge_left_out_is_scikit_learns_ridge_without_that_image():
    features, labels = blobs(n=24, d=6, classes=3, spread=1.5)
    unit = unit_rows(features)
    lam = [p * np.sum((unit - unit.mean(axis=0)) ** 2) / 6 for p in (0.03, 0.1, 0.3, 1.0)]
    likelihoods, accuracies = [], []
    for strength in lam:
        scores = np.empty((24, 3))
        for i in range(24):
            rest = np.arange(24) != i
            scores[i] = Ridge(alpha=strength).fit(unit[rest], np.eye(3)[labels[rest]]).predict(unit[i : i + 1])[0]
        likelihoods.append(fitted_log_likelihood(scores, labels))
        accuracies.append(np.mean(scores.argmax(axis=1) == labels))
    assert ridge(features, labels) == pytest.approx(accuracies[1])
    assert ridge_log_likelihood(features, labels) == pytest.approx(max(likelihoods), rel=1e-9)


def test_ridge_likelihood_starts_at_the_class_texts():
    features, labels = blobs(n=12, d=16, classes=4, spread=3.0, seed=2)
    centres = np.stack([features[labels == c].mean(axis=0) for c in range(4)])
    helped = ridge_log_likelihood(features, labels, text_features=unit_rows(centres))
    assert helped > ridge_log_likelihood(features, labels)
    assert math.isnan(ridge_log_likelihood(features[:4], labels[:4]))  # one image a class
    assert math.isnan(ridge_log_likelihood(features[labels == 0], labels[labels == 0]))
