"""knn.py: scikit-learn's neighbours left out one by one, and what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from helpers.blobs import blobs
from vlmsel_auto.ranking.evidence.knn import knn


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


def test_duplicated_images_make_the_nearest_neighbour_right():
    features, labels = blobs(spread=3.0)
    assert knn(np.vstack([features, features]), np.concatenate([labels, labels]), k=1) == 1.0


def test_separated_classes_score_higher():
    near, labels = blobs(spread=2.0)
    far, _ = blobs(spread=0.2)
    assert knn(far, labels) > knn(near, labels)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rotating_features_permuting_images_and_renaming_classes_change_nothing(seed):
    rng = np.random.default_rng(seed)
    features, labels = blobs(seed=seed % 1000)
    rotation, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    order, names = rng.permutation(60), rng.permutation(4)
    value = knn(features, labels)
    assert knn(features @ rotation, labels) == pytest.approx(value, rel=1e-6)
    assert knn(features[order], labels[order]) == pytest.approx(value, rel=1e-6)
    assert knn(features, names[labels]) == pytest.approx(value, rel=1e-6)


def test_one_label_a_class_says_nothing():
    features, labels = blobs(n=4, classes=4)
    assert math.isnan(knn(features, labels))
