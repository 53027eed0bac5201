"""Regularised H-score: between-class variance in units of a shrunken feature covariance.

Bao et al., "An Information-Theoretic Approach to Transferability", ICIP 2019; regularised form of Ibrahim et al.,
"Newer is not always better", 2021 (arXiv 2110.06893): Ledoit-Wolf covariance, between-class covariance times (1 - a).
"""

from __future__ import annotations

import math

import numpy as np

from vlmsel_auto.records import FloatArray, IntArray


def hscore(features: FloatArray, labels: IntArray) -> float:
    """Return tr(pinv(Sigma_a) (1 - a) cov(class means)) >= 0, a = the Ledoit-Wolf shrinkage.

    NaN when no class has two images: class means are then the images.
    """
    from sklearn.covariance import ledoit_wolf  # a second of imports that only labels need

    features = np.asarray(features, dtype=np.float64)
    count = np.bincount(labels)
    if count.max(initial=0) < 2:  # noqa: PLR2004 - a class of one has no spread
        return math.nan
    centred = features - features.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(centred, assume_centered=True)
    sums = np.zeros((len(count), centred.shape[1]))
    np.add.at(sums, labels, centred)
    means = sums / np.maximum(count, 1)[:, None]
    # np.cov with n - 1, over images whose row is their class mean
    between = (means * count[:, None]).T @ means / (len(labels) - 1)
    return float((1.0 - shrinkage) * np.trace(np.linalg.pinv(covariance, hermitian=True) @ between))
