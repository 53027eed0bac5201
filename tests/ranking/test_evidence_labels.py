"""k-NN, LogME and H-score: formulas of other libraries or of the papers, and what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier

from vlmsel_auto.ranking.evidence.hscore import hscore
from vlmsel_auto.ranking.evidence.knn import knn, unit_rows
from vlmsel_auto.ranking.evidence.likelihood import fitted_log_likelihood, zeroshot_log_likelihood
from vlmsel_auto.ranking.evidence.linear import ridge, ridge_log_likelihood
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


def test_the_likelihood_is_scikit_learns_log_loss_at_the_best_sharpness():
    rng = np.random.default_rng(3)
    labels = np.arange(40) % 4
    scores = 0.6 * np.eye(4)[labels] + rng.normal(size=(40, 4))
    losses = [log_loss(labels, special.softmax(a * scores, axis=1)) for a in (1, 2, 4, 8, 16, 32)]
    assert fitted_log_likelihood(scores, labels) == pytest.approx(-min(losses))
    assert math.isnan(fitted_log_likelihood(np.zeros((0, 4)), labels[:0]))


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.1, 10.0), shift=st.floats(-1.0, 1.0))
def test_zero_shot_likelihood_knows_no_logit_scale(scale, shift):
    rng = np.random.default_rng(5)
    labels = np.arange(24) % 3
    cosine = 0.1 * np.eye(3)[labels] + 0.1 * rng.normal(size=(24, 3))
    expected = zeroshot_log_likelihood(cosine, labels)
    assert zeroshot_log_likelihood(scale * cosine + shift, labels) == pytest.approx(expected, rel=1e-9)
    assert -math.log(3) < expected < 0.0
    assert math.isnan(zeroshot_log_likelihood(cosine, labels[:0]))


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
