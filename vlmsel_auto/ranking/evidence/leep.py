"""LEEP and NLEEP: how well labels can be told from the classes, or clusters, that a candidate sees.

LEEP: Nguyen et al., ICML 2020 (arXiv 2002.12462). NLEEP: Li et al., CVPR 2021 (arXiv 2011.11200). Both with the
logarithm of the papers, which some public copies drop. A model of the CLIP kind has no source head: LEEP takes its
zero-shot softmax over some fixed vocabulary, here the target's own class names.
"""

from __future__ import annotations

import math

import numpy as np

from vlmsel_auto.records import FloatArray, IntArray

_TINY = 1e-12  # keeps log 0 out where a source class is never predicted for a label
_ENERGY = 0.8  # of the variance that NLEEP's PCA keeps
_PER_CLASS = 5  # mixture components a class


def leep(source_probabilities: FloatArray, labels: IntArray) -> float:
    """Mean log expected empirical prediction, in nats per image, <= 0; NaN without images.

    ``source_probabilities`` (n, Z) are a softmax over source classes, or responsibilities of clusters.
    """
    p = np.asarray(source_probabilities, dtype=np.float64)
    if len(labels) == 0:
        return math.nan
    joint = np.zeros((int(labels.max()) + 1, p.shape[1]))  # J[y, z]
    np.add.at(joint, labels, p / len(labels))
    conditional = joint / np.maximum(joint.sum(axis=0), _TINY)  # P(y | z)
    expected = np.einsum("nz,nz->n", p, conditional[labels])
    return float(np.mean(np.log(np.maximum(expected, _TINY))))


def nleep(features: FloatArray, labels: IntArray, *, seed: int = 0) -> float:
    """LEEP over the responsibilities of a Gaussian mixture in the leading principal components.

    The score depends on the mixture's start, which ``seed`` draws. NaN when there are fewer than 10 images per class on
    average, as five components a class would then explain single images.
    """
    from sklearn.decomposition import PCA  # a second of imports that only labels need
    from sklearn.mixture import GaussianMixture

    n, n_classes = len(labels), int(labels.max(initial=-1)) + 1
    if n_classes < 1 or n < 2 * _PER_CLASS * n_classes:
        return math.nan
    scale = float(np.std(features))
    if scale == 0.0:
        return math.nan
    low = PCA(n_components=_ENERGY, svd_solver="full").fit_transform(np.asarray(features, dtype=np.float64) / scale)
    mixture = GaussianMixture(
        n_components=_PER_CLASS * n_classes, covariance_type="diag", reg_covar=1e-4, max_iter=50, tol=1e-2,
        random_state=seed,
    )  # fmt: skip
    mixture.fit(low)
    return leep(np.asarray(mixture.predict_proba(low), dtype=np.float64), labels)
