"""Rankings that never look at the target: what every other ranking has to beat."""

from __future__ import annotations

import numpy as np
from scipy import stats

from vlmsel_auto.ranking.scaling import known_mean, standardise
from vlmsel_auto.records import FloatArray

_DECIMALS = 12
_SHARPNESS = 10.0  # of the ceiling's softmax over rank correlations


def weighted_rank(truth: FloatArray, weights: FloatArray) -> FloatArray:
    """Minus the weighted mean rank over source tasks, rank 1 = best, tied ranks averaged.

    Args:
        truth: (M, S) accuracies on the sources; a missing figure counts as the middle rank of its task.
        weights: (M, S) or (S,) of the sources.

    Returns:
        (M,) scores, higher is better.
    """
    known = np.isfinite(truth)
    order = stats.rankdata(np.where(known, -truth, np.nan), axis=0, nan_policy="omit")
    # the place within those known, so that a task which few were tried on counts no less
    ranks = np.where(known, (order - 0.5) / np.maximum(known.sum(axis=0), 1) - 0.5, 0.0)
    # rounded: equal mean ranks must not differ by the order of the sum
    return np.asarray(-(ranks * weights).sum(axis=1).round(_DECIMALS), dtype=np.float64)


def average_rank(truth: FloatArray) -> FloatArray:
    """`weighted_rank` (M,) with all sources of truth (M, S) alike."""
    return weighted_rank(truth, np.full(truth.shape[1], 1.0 / max(truth.shape[1], 1)))


def calibrated_total(target: FloatArray, sources: FloatArray) -> FloatArray:
    """Conductance totals in units of each model's own on the sources, which takes a logit scale out.

    Args:
        target: (M,) mean total on the target.
        sources: (M, S) on the sources, NaN where unknown.

    Returns:
        (M,) target divided by the mean of the sources; NaN without sources or where that mean is not positive.
    """
    mean = known_mean(sources, axis=1)[:, 0]
    return np.where(mean > 0.0, target / np.where(mean > 0.0, mean, 1.0), np.nan)


def source_ceiling(target: FloatArray, sources: FloatArray) -> FloatArray:
    """Source ranks weighted by their true rank correlation with the target: no real ranking, a ceiling for weighting.

    Args:
        target: (M,) true accuracies on the target.
        sources: (M, S) on the sources, no missing values in the columns that count.

    Returns:
        (M,) weighted mean of standardised accuracies, weights softmax(10 x Spearman correlation).
    """
    complete = np.isfinite(sources).all(axis=0) & (np.nanstd(sources, axis=0) > 0.0)
    kept = sources[:, complete]
    if kept.shape[1] == 0 or np.ptp(target) == 0.0:
        return np.zeros(len(target))
    own = stats.rankdata(target)
    correlation = np.array([np.corrcoef(own, stats.rankdata(column))[0, 1] for column in kept.T])
    weights = np.exp(_SHARPNESS * (correlation - correlation.max()))
    return np.asarray(standardise(kept) @ weights / weights.sum(), dtype=np.float64)
