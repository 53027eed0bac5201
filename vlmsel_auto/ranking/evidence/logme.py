"""LogME: log maximum evidence of a Bayesian linear model from embeddings to one-hot labels.

You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021 (arXiv 2102.11005);
fixed-point iteration of arXiv 2110.10545. Its public copy keeps (D / 2) ln a but sums ln(a + b s) over min(n, D) terms
only, which is wrong for n < D, the case of few labels: here all D terms count.

Symbols: alpha a, beta b (precisions of weights and noise), s squared singular values, r0 = |t|^2 - |x|^2.
"""

from __future__ import annotations

import math

import numpy as np

from vlmsel_auto.records import FloatArray, IntArray

_EPS = 1e-5  # as in the reference implementation
_ITERATIONS = 11
_TOLERANCE = 1e-3


def _evidence(s: FloatArray, x: FloatArray, r0: float, *, n: int, d: int) -> float:
    """Maximised log evidence of one target vector, divided by n."""
    a = b = 1.0
    for _ in range(_ITERATIONS):
        q = a / b
        gamma = float(np.sum(s / (s + q)))
        m2 = float(np.sum(s * x**2 / (q + s) ** 2))
        residual = float(np.sum(x**2 / (1.0 + s / q) ** 2)) + r0
        a = gamma / (m2 + _EPS)
        b = (n - gamma) / (residual + _EPS)
        if abs(a / b - q) / q < _TOLERANCE:
            break
    q = a / b
    m2 = float(np.sum(s * x**2 / (q + s) ** 2))
    residual = float(np.sum(x**2 / (1.0 + s / q) ** 2)) + r0
    log_det = float(np.sum(np.log(a + b * s))) + (d - len(s)) * math.log(a)
    value = d * math.log(a) + n * math.log(b) - log_det - b * residual - a * m2 - n * math.log(2.0 * math.pi)
    return 0.5 * value / n


def logme(features: FloatArray, labels: IntArray) -> float:
    """Mean over classes of the log maximum evidence, in nats per image.

    NaN when fewer than two classes or no more images than classes are labelled.
    """
    features = np.asarray(features, dtype=np.float64)
    n, d = features.shape
    present = np.unique(labels)
    if len(present) < 2 or n <= len(present):  # noqa: PLR2004 - one class cannot be told from another
        return math.nan
    u, singular, _ = np.linalg.svd(features, full_matrices=False)
    keep = singular > singular[0] * 1e-10
    u, s = u[:, keep], singular[keep] ** 2
    values = []
    for c in present:
        t = (labels == c).astype(np.float64)
        x = u.T @ t
        r0 = max(0.0, float(t @ t - x @ x))
        values.append(_evidence(s, x, r0, n=n, d=d))
    return float(np.mean(values))
