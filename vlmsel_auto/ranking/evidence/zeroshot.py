"""Scores of the zero-shot predictions: accuracy where labels exist, confidence, entropy and margins where not.

Everything takes cosines (n, K) between unit-norm image embeddings and unit-norm class texts, and the logit scale
apart, because a scale comes from a model's pretraining (CLIP 100, SigLIP about 110 with a bias, small models 20) and is
no sign of quality.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from scipy import special

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


def confidence(cosine: FloatArray, *, logit_scale: float) -> float:
    """Mean highest softmax probability over images, in [1 / K, 1]."""
    return float(np.mean(special.softmax(logit_scale * cosine, axis=1).max(axis=1)))


def entropy(cosine: FloatArray, *, logit_scale: float) -> float:
    """Minus the mean entropy of the softmax, in nats: higher is surer, in [-ln K, 0]."""
    return -float(np.mean(special.entr(special.softmax(logit_scale * cosine, axis=1)).sum(axis=1)))


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


def iimm(features: FloatArray, text_features: FloatArray) -> float:
    """Inter-intra modal measure: mean of image-image cosines and of image to wrong-class-text cosines, in [-1, 1].

    "Inter-Intra Modal Measure", ICCV 2025 (arXiv 2407.15731), with zero-shot predictions in the labels' place. High
    values predict large gains from tuning. NaN with fewer than two images or classes.
    """
    n, n_classes = len(features), len(text_features)
    if n < 2 or n_classes < 2:  # noqa: PLR2004 - pairs are needed
        return math.nan
    unit = unit_rows(features)
    pairs = (float(np.sum(unit.sum(axis=0) ** 2)) - float(np.sum(unit**2))) / (n * (n - 1))
    cosine = cosines(features, text_features)
    wrong = float(np.mean((cosine.sum(axis=1) - cosine.max(axis=1)) / (n_classes - 1)))
    return 0.5 * (pairs + wrong)
