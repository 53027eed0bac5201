"""leep.py: the definition in loops."""

import math

import numpy as np
import pytest
from scipy import special

from helpers.blobs import texts_and_images
from vlmsel_auto.ranking.evidence.leep import leep


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
