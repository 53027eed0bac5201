"""Log likelihood of labels under scores: graded evidence, where an accuracy on few images has few values.

Scores may have any scale: a temperature is fitted first, so that a model's logit scale says nothing.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from scipy import special

from vlmsel_auto.records import FloatArray, IntArray

# One parameter on a coarse grid: it cannot learn the labels.
_SHARPNESS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


def fitted_log_likelihood(scores: FloatArray, labels: IntArray) -> float:
    """Mean log softmax of the true class at the sharpness of 1, 2, 4 ... 32 that suits the labels best.

    ``scores`` (n, K) are higher for likelier classes and of about unit spread. In nats per image, <= 0; NaN without
    images.
    """
    if len(labels) == 0:
        return math.nan
    rows = np.arange(len(labels))
    found = []
    for sharpness in _SHARPNESS:
        logits = sharpness * np.asarray(scores, dtype=np.float64)
        found.append(float(np.mean(logits[rows, labels] - special.logsumexp(logits, axis=1))))
    return max(found)


def zeroshot_log_likelihood(cosine: FloatArray, labels: IntArray) -> float:
    """`fitted_log_likelihood` of the zero-shot cosines in units of their spread."""
    if len(labels) == 0:
        return math.nan
    centred = cosine - cosine.mean(axis=1, keepdims=True)
    return fitted_log_likelihood(centred / max(float(np.std(centred)), 1e-12), labels)
