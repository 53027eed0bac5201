"""What holds for every score of embeddings and labels alone."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.blobs import blobs
from vlmsel_auto.ranking.evidence.hscore import hscore
from vlmsel_auto.ranking.evidence.knn import knn
from vlmsel_auto.ranking.evidence.logme import logme

Score = Callable[[np.ndarray, np.ndarray], float]

pytestmark = pytest.mark.parametrize("score", [hscore, knn, logme])


def test_separated_classes_score_higher(score: Score) -> None:
    near, labels = blobs(spread=2.0)
    far, _ = blobs(spread=0.2)
    assert score(far, labels) > score(near, labels)


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


def test_one_label_a_class_says_nothing(score: Score) -> None:
    features, labels = blobs(n=4, classes=4)
    assert math.isnan(score(features, labels))
