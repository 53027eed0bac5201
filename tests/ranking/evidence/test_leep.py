"""leep.py: the definition in loops, clusters."""

import math

import numpy as np
import pytest
from scipy import special

from helpers.blobs import texts_and_images
from vlmsel_auto.ranking.evidence.leep import leep, nleep


def test_leep_is_its_definition_in_loops():
    features, labels, texts = texts_and_images()
    p = special.softmax(5 * features @ texts.T, axis=1)
    total = 0.0
    for i in range(len(labels)):
        inner = 0.0
        for z in range(3):
            joint = sum(p[k, z] for k in range(len(labels)) if labels[k] == labels[i])
            inner += joint / p[:, z].sum() * p[i, z]
        total += math.log(inner)
    assert leep(p, labels) == pytest.approx(total / len(labels))
    assert leep(np.eye(3)[labels], labels) == pytest.approx(0.0)


def test_nleep_prefers_separated_clusters_and_wants_enough_images():
    near, labels, _ = texts_and_images(n=120, spread=2.0)
    far, _, _ = texts_and_images(n=120, spread=0.1)
    assert nleep(far, labels) > nleep(near, labels)
    assert nleep(far, labels) <= 0.0
    assert math.isnan(nleep(far[:20], labels[:20]))
