"""k-NN, LogME and H-score: formulas of other libraries or of the papers, and what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import KNeighborsClassifier

from vlmsel_auto.ranking.evidence.hscore import hscore
from vlmsel_auto.ranking.evidence.knn import knn
from vlmsel_auto.ranking.evidence.logme import logme


def blobs(*, n=60, d=12, classes=4, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = rng.normal(size=(classes, d))
    return centres[labels] + spread * rng.normal(size=(n, d)) + 0.3, labels


SCORES = [knn, logme, hscore]


@pytest.mark.parametrize("k", [1, 5])
def test_knn_is_sklearns_leave_one_out_with_distance_as_tie_break(k):
    features, labels = blobs(spread=1.5)
    right = []
    for i in range(len(labels)):
        rest = np.arange(len(labels)) != i
        model = KNeighborsClassifier(
            n_neighbors=k, metric="cosine", weights=lambda distance: 1.0 + (1.0 - distance) / (4 * k)
        )
        right.append(model.fit(features[rest], labels[rest]).predict(features[i : i + 1])[0] == labels[i])
    assert knn(features, labels, k=k) == pytest.approx(np.mean(right))


def marginal_log_likelihood(features, target, a, b):
    covariance = np.eye(len(target)) / b + features @ features.T / a
    return stats.multivariate_normal(mean=np.zeros(len(target)), cov=covariance).logpdf(target) / len(target)


@pytest.mark.parametrize(("n", "d"), [(60, 12), (30, 80)])
def test_logme_is_the_gaussian_marginal_likelihood_at_its_maximum(n, d):
    features, labels = blobs(n=n, d=d)
    best = []
    for c in range(4):
        target = (labels == c).astype(float)
        grid = [
            marginal_log_likelihood(features, target, a, b)
            for a in np.geomspace(1, 1e4, 40)
            for b in np.geomspace(1, 1e3, 40)
        ]
        best.append(max(grid))
    assert logme(features, labels) == pytest.approx(np.mean(best), abs=0.02)


def test_logme_small_sample_form_agrees_when_columns_of_zeros_are_added():
    features, labels = blobs(n=20, d=12)
    wide = np.hstack([features, np.zeros((20, 500))])
    assert logme(wide, labels) == pytest.approx(logme(features, labels), abs=1e-9)


def test_hscore_is_the_formula_over_sklearns_ledoit_wolf():
    features, labels = blobs()
    centred = features - features.mean(axis=0)
    fit = LedoitWolf(assume_centered=False).fit(centred)
    means = np.stack([centred[labels == labels[i]].mean(axis=0) for i in range(len(labels))])
    expected = np.trace(np.linalg.pinv(fit.covariance_) @ ((1 - fit.shrinkage_) * np.cov(means, rowvar=False)))
    assert hscore(features, labels) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("score", SCORES)
def test_separated_classes_score_higher(score):
    near, labels = blobs(spread=2.0)
    far, _ = blobs(spread=0.2)
    assert score(far, labels) > score(near, labels)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rotating_features_permuting_images_and_renaming_classes_change_nothing(seed):
    rng = np.random.default_rng(seed)
    features, labels = blobs(seed=seed % 1000)
    rotation, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    order, names = rng.permutation(60), rng.permutation(4)
    for score in SCORES:
        value = score(features, labels)
        assert score(features @ rotation, labels) == pytest.approx(value, rel=1e-6)
        assert score(features[order], labels[order]) == pytest.approx(value, rel=1e-6)
        assert score(features, names[labels]) == pytest.approx(value, rel=1e-6)


def test_one_label_a_class_says_nothing_for_knn_and_hscore():
    features, labels = blobs(n=4, classes=4)
    assert all(math.isnan(score(features, labels)) for score in SCORES)


def test_duplicated_images_make_the_nearest_neighbour_right():
    features, labels = blobs(spread=3.0)
    assert knn(np.vstack([features, features]), np.concatenate([labels, labels]), k=1) == 1.0
