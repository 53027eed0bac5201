"""Scores of the zero-shot predictions: accuracy where labels exist, margins where not.

Everything takes cosines (n, K) between unit-norm image embeddings and unit-norm class texts without the logit scale,
which comes from a model's pretraining (CLIP 100, SigLIP about 110 with a bias, small models 20), no sign of quality.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.records import FloatArray, IntArray

CLARITY: Final = 1.25  # log-odds for one standard deviation of a class's cosines between images; our own choice


def cosines(features: FloatArray, text_features: FloatArray) -> FloatArray:
    """Cosines (n, K) between embeddings (n, D) and class texts (K, D), whatever their scales."""
    return np.asarray(unit_rows(features) @ unit_rows(text_features).T, dtype=np.float64)


def zeroshot(cosine: FloatArray, labels: IntArray) -> float:
    """Zero-shot accuracy in [0, 1] on the labelled images; NaN without any."""
    if len(labels) == 0:
        return math.nan
    return float(np.mean(cosine.argmax(axis=1) == labels))


def true_class_zscore(cosine: FloatArray, labels: IntArray) -> float:
    """Mean over images of the true class's cosine minus the image's mean cosine, over the deviation of all cosines.

    A graded form of the zero-shot accuracy, which says more when labels are few and does not depend on how wide a
    model's cosines spread. NaN without labels, 0 when all cosines are equal.
    """
    if len(labels) == 0:
        return math.nan
    own = cosine[np.arange(len(labels)), labels] - cosine.mean(axis=1)
    spread = float(np.std(cosine))
    return float(np.mean(own)) / spread if spread > 0.0 else 0.0


def margin(cosine: FloatArray) -> float:
    """Mean over images of the highest cosine minus the mean cosine: the margin without the logit scale."""
    return float(np.mean(cosine.max(axis=1) - cosine.mean(axis=1)))


def margin_gain(cosine: FloatArray, baseline: FloatArray) -> float:
    """How much larger `margin` is on the images than on the baseline image, with the images' predicted classes.

    This is the conductance total by completeness, mean of F(x) - F(x0) with F = margin, without the logit scale; it
    needs no path. ``baseline`` (K,) are the baseline image's cosines.
    """
    start = baseline[cosine.argmax(axis=1)] - baseline.mean()
    return float(np.mean(cosine.max(axis=1) - cosine.mean(axis=1) - start))


def top2_margin(cosine: FloatArray) -> float:
    """Mean over images of the highest cosine minus the second highest."""
    top = np.sort(cosine, axis=1)
    return float(np.mean(top[:, -1] - top[:, -2]))
