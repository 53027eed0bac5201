"""ModelGPT: a linear regression on text scores of class names that was fitted on other tasks.

Zohar et al., "LOVM: Language-Only Vision Model Selection", NeurIPS 2023 (arXiv 2306.08893); the scores themselves are
those of `ranking.evidence.text`. ImageNet accuracy joins where a library has it.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LinearRegression

from vlmsel_auto.ranking.scaling import known_mean
from vlmsel_auto.records import FloatArray


def regressed(sources: FloatArray, truth: FloatArray, target: FloatArray) -> FloatArray:
    """What a least-squares fit on the sources predicts of a target, accuracies measured from each task's mean.

    Args:
        sources: (M, S, P) scores on the source tasks, NaN where unknown.
        truth: (M, S) accuracies there, NaN where unknown.
        target: (M, P) scores on the target.

    Returns:
        (M,) predicted accuracy relative to the task's mean; NaN where a score is unknown, all NaN where fewer rows are
        known than there are scores.
    """
    known = np.isfinite(sources).all(axis=2) & np.isfinite(truth)
    rows = np.isfinite(target).all(axis=1)
    result = np.full(len(target), np.nan)
    if known.sum() <= target.shape[1] or not rows.any():
        return result
    centred = truth - known_mean(np.where(known, truth, np.nan), axis=0)
    fit = LinearRegression().fit(sources[known], centred[known])
    result[rows] = fit.predict(target[rows])
    return result
