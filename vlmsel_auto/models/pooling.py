"""Logarithmic opinion pool: several classifiers to one, by a weighted sum of their log-probabilities.

p(c) is proportional to prod_m p_m(c)^w_m (Genest & Zidek, Statistical Science 1986, eq. 3.7), w >= 0. The weights need
not sum to one: their sum is how sure the pool is, so one fit weighs the members and sets their temperature. F members,
n images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from vlmsel_auto.records import FloatArray, IntArray

LEAST_LOG: Final = -27.0  # of a log-probability: one member alone never excludes a class
SHRINKAGE: Final = 2.0  # nats a squared unit: what pulls fitted weights towards their start; our own choice
_MOST_WEIGHT: Final = 4.0


def log_probabilities(logits: FloatArray | NDArray[np.float32]) -> FloatArray:
    """Log-probabilities (n, K) of logits (n, K), none below `LEAST_LOG`."""
    found: FloatArray = np.maximum(log_softmax(np.asarray(logits, dtype=np.float64), axis=1), LEAST_LOG)
    return found


def pool(logs: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
    """Log-probabilities (n, K) of the pool.

    Args:
        logs: (n, K) of each member, from `log_probabilities`.
        weights: (F,) not negative.

    Raises:
        ValueError: no member, or not one weight each.
    """
    if not logs or len(logs) != len(weights):
        raise ValueError(f"a pool needs a weight for each member, but got {len(weights)} for {len(logs)}")
    total: FloatArray = log_softmax(np.tensordot(np.asarray(weights), np.stack(logs), axes=1), axis=1)
    return total


def fit_weights(
    logs: Sequence[FloatArray], labels: IntArray, *, start: Sequence[float], shrinkage: float = SHRINKAGE
) -> FloatArray:
    """The weights with the smallest log loss plus a penalty; a convex problem, solved to convergence by L-BFGS-B.

    Args:
        logs: (n, K) of each member, from `log_probabilities`, on images that it never saw.
        labels: (n,) in 0..K-1.
        start: (F,) weights that the penalty pulls towards.
        shrinkage: factor on the summed squared distance to ``start``, in nats over all images; at least 0.

    Returns:
        (F,) in [0, 4].

    Raises:
        ValueError: no member, no image, or lengths that differ.
    """
    table = np.asarray(logs, dtype=np.float64)
    towards = np.asarray(start, dtype=np.float64)
    if table.ndim != 3 or table.shape[:2] != (len(towards), len(labels)) or not table.size:  # noqa: PLR2004 - F, n, K
        raise ValueError(
            "log-probabilities of each member for each label are needed, "
            f"but got {table.shape} for {len(labels)} labels and {len(towards)} weights"
        )
    true = table[:, np.arange(len(labels)), labels].sum(axis=1)  # (F,)

    def objective(weights: FloatArray) -> tuple[float, FloatArray]:
        scores = np.tensordot(weights, table, axes=1)
        level = logsumexp(scores, axis=1)
        shares = np.exp(scores - level[:, None])
        away = weights - towards
        loss = float(level.sum() - weights @ true + shrinkage * away @ away)
        return loss, np.einsum("nk,fnk->f", shares, table) - true + 2 * shrinkage * away

    found = minimize(objective, towards, jac=True, method="L-BFGS-B", bounds=[(0.0, _MOST_WEIGHT)] * len(towards))
    best: FloatArray = found.x
    return best
