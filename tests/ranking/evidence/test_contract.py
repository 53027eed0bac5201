"""What holds for every score of embeddings, labels and texts: a new one goes into one of the two lists."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from helpers.blobs import blobs, texts_and_images
from vlmsel_auto.ranking.evidence import zeroshot as zs
from vlmsel_auto.ranking.evidence.knn import knn
from vlmsel_auto.ranking.evidence.leep import leep
from vlmsel_auto.ranking.evidence.linear import ridge
from vlmsel_auto.ranking.evidence.logme import logme

Score = Callable[[np.ndarray, np.ndarray], float]  # features (n, D), labels (n,)
TextScore = Callable[[np.ndarray, np.ndarray, np.ndarray], float]  # and texts (K, D)

of_labels = pytest.mark.parametrize("score", [knn, logme])
of_texts = pytest.mark.parametrize(
    "score",
    [
        lambda f, y, t: leep(special.softmax(5 * zs.cosines(f, t), axis=1), y),
        lambda f, y, t: ridge(f, y, text_features=t),
        lambda f, y, t: zs.margin(zs.cosines(f, t)),
        lambda f, y, t: zs.true_class_zscore(zs.cosines(f, t), y),
    ],
    ids=["leep", "ridge_text", "margin", "true_class_zscore"],
)


@of_labels
def test_separated_classes_score_higher(score: Score) -> None:
    near, labels = blobs(spread=2.0)
    far, _ = blobs(spread=0.2)
    assert score(far, labels) > score(near, labels)


@of_labels
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rotating_features_permuting_images_and_renaming_classes_change_nothing(score: Score, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, labels = blobs(seed=seed % 1000)
    rotation, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    order, names = rng.permutation(60), rng.permutation(4)
    value = score(features, labels)
    assert score(features @ rotation, labels) == pytest.approx(value, rel=1e-6)
    assert score(features[order], labels[order]) == pytest.approx(value, rel=1e-6)
    assert score(features, names[labels]) == pytest.approx(value, rel=1e-6)


@of_labels
def test_one_label_a_class_says_nothing(score: Score) -> None:
    features, labels = blobs(n=4, classes=4)
    assert math.isnan(score(features, labels))


@of_texts
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_rotation_scale_and_order_of_images_and_classes_change_nothing(score: TextScore, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, labels, texts = texts_and_images(seed=seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    order, names = rng.permutation(60), rng.permutation(3)
    plain = score(features, labels, texts)
    moved = score(3.0 * (features @ rotation)[order], names[labels[order]], (texts @ rotation)[np.argsort(names)])
    assert moved == pytest.approx(plain, abs=1e-9)
