"""Divergences to weights of the source tasks, as our own choice: docs/ranking.md has the comparison."""

from __future__ import annotations

import numpy as np
from scipy import special

from vlmsel_auto.records import FloatArray

__all__ = ["pool", "source_weights"]

_TINY = 1e-12


def pool(divergences: FloatArray, *, share: float) -> FloatArray:
    """Mix every candidate's divergences with the mean over candidates, after bringing them to one scale.

    One candidate's view of how tasks resemble each other is noisy; the mean of all is not model-specific. The mix
    keeps some of both.

    Args:
        divergences: (M, S), NaN where unknown.
        share: 0 keeps each candidate's own, 1 gives all the mean.

    Returns:
        (M, S) divergences in units of each candidate's mean divergence; rows without any profile get the mean.
    """
    known = np.isfinite(divergences)
    count = known.sum(axis=1, keepdims=True)
    mean = np.where(known, divergences, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    scaled = np.where(known, divergences / np.where(mean > 0.0, mean, 1.0), np.nan)
    seen = known.sum(axis=0)
    common = np.where(known, scaled, 0.0).sum(axis=0) / np.maximum(seen, 1)
    common = np.where(seen > 0, common, np.nan)
    return np.where(known, (1.0 - share) * np.nan_to_num(scaled) + share * common, common)


def source_weights(divergences: FloatArray, *, temperature: float) -> FloatArray:
    """Weights softmax(-(DCD - min) / (t * spread)), spread = standard deviation over the sources.

    Args:
        divergences: (..., S); NaN gives weight 0.
        temperature: t > 0.

    Returns:
        (..., S) weights that sum to 1; equal weights, the average rank, where the divergences do not differ or none is
        known.
    """
    d = np.asarray(divergences, dtype=np.float64)
    known = np.isfinite(d)
    count = np.maximum(known.sum(axis=-1, keepdims=True), 1)
    filled = np.where(known, d, 0.0)
    mean = filled.sum(axis=-1, keepdims=True) / count
    spread = np.sqrt(np.where(known, (filled - mean) ** 2, 0.0).sum(axis=-1, keepdims=True) / count)
    flat = spread <= _TINY * np.maximum(1.0, np.abs(mean))
    logits = np.where(known, -(filled - mean) / np.where(flat, 1.0, temperature * spread), -np.inf)
    logits = np.where(flat & known, 0.0, logits)
    logits = np.where(known.any(axis=-1, keepdims=True), logits, 0.0)
    return np.asarray(special.softmax(logits, axis=-1), dtype=np.float64)
