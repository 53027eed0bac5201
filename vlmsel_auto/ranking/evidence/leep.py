"""LEEP: how well labels can be told from the classes that a candidate sees.

Nguyen et al., ICML 2020 (arXiv 2002.12462), with the logarithm of the paper, which some public copies drop. A model of
the CLIP kind has no source head: its zero-shot softmax takes its place, over the target's own class names.
"""

from __future__ import annotations

import math

import numpy as np

from vlmsel_auto.records import FloatArray, IntArray

_TINY = 1e-12  # keeps log 0 out where a source class is never predicted for a label


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
