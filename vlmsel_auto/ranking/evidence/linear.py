"""Few-shot linear classifiers on frozen embeddings, scored on images they were not fitted on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vlmsel_auto.ranking.evidence.likelihood import fitted_log_likelihood
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.records import FloatArray, IntArray

_PENALTIES = (0.03, 0.1, 0.3, 1.0)  # of `ridge_log_likelihood`


def ridge(
    features: FloatArray, labels: IntArray, *, penalty: float = 0.1, text_features: FloatArray | None = None
) -> float:
    """Exact leave-one-out accuracy in [0, 1] of a ridge classifier on unit-norm embeddings, from one decomposition.

    The weights are shrunk towards the class texts when these are given (a start at the zero-shot head, as tuning has
    it), else towards zero; ``penalty`` is in units of the mean of the min(n, D) squared singular values. NaN when
    fewer than two classes are labelled or no class has two images.
    """
    if not _learnable(labels):
        return math.nan
    (scores,) = _left_out(features, labels, penalties=(penalty,), text_features=text_features)
    return float(np.mean(scores.argmax(axis=1) == labels))


def ridge_log_likelihood(features: FloatArray, labels: IntArray, *, text_features: FloatArray | None = None) -> float:
    """Log likelihood of what `ridge` says of each image left out, at the penalty that suits the labels best.

    In nats per image, <= 0; NaN where `ridge` is.
    """
    if not _learnable(labels):
        return math.nan
    made = _left_out(features, labels, penalties=_PENALTIES, text_features=text_features)
    return max(fitted_log_likelihood(scores, labels) for scores in made)


def _learnable(labels: IntArray) -> bool:
    count = np.bincount(labels)
    return bool(np.sum(count > 0) > 1 and count.max() > 1)


def _left_out(
    features: FloatArray, labels: IntArray, *, penalties: Sequence[float], text_features: FloatArray | None
) -> list[FloatArray]:
    """Class scores (n, K) of every image by ridge regression on the others, one array a penalty.

    Leave-one-out residual of a linear smoother: (y - fit) / (1 - h).
    """
    unit = unit_rows(features)
    n_classes = int(labels.max()) + 1 if text_features is None else max(int(labels.max()) + 1, len(text_features))
    target = np.eye(n_classes)[labels]
    offset = np.zeros_like(target)
    if text_features is not None:
        cosine = unit @ np.asarray(text_features, dtype=np.float64).T
        offset = cosine - cosine.mean(axis=1, keepdims=True)
        offset /= max(float(np.std(offset)), 1e-12) * math.sqrt(n_classes)  # spread of a one-hot target
    vectors, singular, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    values = singular**2
    residual = target - offset
    residual_mean = residual.mean(axis=0)
    projected = vectors.T @ (residual - residual_mean)
    found = []
    for penalty in penalties:
        lam = max(penalty * float(values.sum()) / min(unit.shape), 1e-12)
        kept = values / (values + lam)
        fit = vectors @ (kept[:, None] * projected) + residual_mean
        leverage = vectors**2 @ kept + 1.0 / len(labels)
        found.append(residual - (residual - fit) / np.maximum(1.0 - leverage, 1e-9)[:, None] + offset)
    return found
