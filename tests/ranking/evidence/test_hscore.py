"""hscore.py: the formula over scikit-learn's covariance."""

import numpy as np
import pytest
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
