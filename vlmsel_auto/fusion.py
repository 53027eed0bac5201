"""Many signals to one score: non-negative weights learned on source tasks, and what their errors there foretell.

Everything is standardised within a task, over candidates: a task's difficulty says nothing about which model is best
on it. Weights are ridge-regularised and not negative, since every signal is oriented so that higher is better; with
some twenty source tasks a freely signed fit learns the accidents of the zoo (docs/ranking.md has the comparison).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from vlmsel_auto.records import FloatArray

__all__ = ["Fusion", "Places", "fit_fusion", "fixed_fusion", "fuse", "places", "standardise"]

_MIN_SD = 0.05  # standard units; a residual of nothing would claim certainty


def standardise(values: FloatArray) -> FloatArray:
    """Zero mean and unit standard deviation over the first axis (candidates); unknown and constant values become 0."""
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, values, 0.0)
    mean = filled.sum(axis=0) / count
    centred = np.where(known, filled - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=0) / count)
    # beyond rounding: a constant column must not become noise
    usable = spread > 1e-12 * np.maximum(1.0, np.abs(mean))
    return np.asarray(np.where(usable, centred / np.where(usable, spread, 1.0), 0.0), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fusion:
    """A learned sum of standardised signals."""

    weights: Mapping[str, float]  # signal -> weight >= 0
    sd: float  # of truth minus score on source tasks that the weights had not seen, in standard units
    sources: int  # tasks that it was learned from; 0: fixed weights


def _solve(gram: FloatArray, moment: FloatArray) -> FloatArray:
    """Minimise w' G w / 2 - m' w over w >= 0 through the Cholesky factor of G."""
    factor = np.linalg.cholesky(gram)
    weights, _ = optimize.nnls(factor.T, np.linalg.solve(factor, moment))
    return np.asarray(weights, dtype=np.float64)


def fit_fusion(signals: Mapping[str, FloatArray], truth: FloatArray, *, penalty: float = 0.1) -> Fusion:
    """Learn weights from tasks whose truth is known; errors come from leaving one task out at a time.

    Args:
        signals: name -> (M, S) values on the source tasks, or (M, S, W) for W draws of the labelled images, oriented
            so that higher is better; NaN where unknown. Draws stay apart: their mean would look less noisy than the
            one draw that a target has.
        truth: (M, S) accuracies; NaN where unknown.
        penalty: ridge penalty per row of the fit.

    Returns:
        The weights, in standard units of the truth per standard unit of a signal.
    """
    names = sorted(signals)
    known = np.isfinite(truth)
    tasks = np.flatnonzero(known.sum(axis=0) > 1)
    if not names or len(tasks) == 0:
        return Fusion(weights={}, sd=1.0, sources=0)
    y = standardise(truth)[:, tasks]
    draws = max([values.shape[2] for values in signals.values() if values.ndim > truth.ndim], default=1)
    x = np.empty((len(truth), len(tasks), draws, len(names)))
    for p, name in enumerate(names):
        values = signals[name] if signals[name].ndim > truth.ndim else signals[name][:, :, None]
        x[..., p] = standardise(np.where(known[:, :, None], values, np.nan))[:, tasks]
    grams = np.einsum("mswp,mswq->spq", x, x) / draws
    moments = np.einsum("mswp,ms->sp", x, y) / draws
    rows = known[:, tasks].sum(axis=0)
    total = int(rows.sum())

    def solve(gram: FloatArray, moment: FloatArray, n: int) -> FloatArray:
        return _solve(gram + penalty * max(n, 1) * np.eye(len(names)), moment)

    gram, moment = grams.sum(axis=0), moments.sum(axis=0)
    sd = 1.0
    if len(tasks) > 1:
        squares = 0.0
        for s in range(len(tasks)):
            weights = solve(gram - grams[s], moment - moments[s], total - int(rows[s]))
            errors = y[:, s, None] - x[:, s] @ weights
            squares += float(np.sum(errors[known[:, tasks[s]]] ** 2)) / draws
        sd = float(np.sqrt(squares / total))
    fitted = solve(gram, moment, total)
    return Fusion(weights=dict(zip(names, fitted.tolist(), strict=True)), sd=max(sd, _MIN_SD), sources=len(tasks))


def fixed_fusion(weights: Mapping[str, float], *, sd: float) -> Fusion:
    """Weights chosen beforehand, for use without a library."""
    return Fusion(weights=dict(weights), sd=sd, sources=0)


def fuse(fusion: Fusion, signals: Mapping[str, FloatArray], *, n: int) -> FloatArray:
    """Scores (n,) of a target's candidates from its signals (n,) by name; unknown signals count as average."""
    score = np.zeros(n)
    for name, weight in fusion.weights.items():
        if name in signals:
            score += weight * standardise(signals[name])
    return score


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Where candidates may really stand, given scores and their errors."""

    p_best: FloatArray  # (M,)
    p_top5: FloatArray  # (M,)
    low: FloatArray  # (M,) 2.5 % quantile of the rank, 1 = best
    high: FloatArray  # (M,) 97.5 % quantile


def places(score: FloatArray, sd: FloatArray, *, draws: int = 4000, seed: int = 0, top: int = 5) -> Places:
    """Simulate true orders: independent normal errors around the scores.

    Args:
        score: (M,) posterior means.
        sd: (M,) posterior standard deviations.
        draws: simulated orders; a probability p is good to sqrt(p (1 - p) / draws).
        seed: of the draws.
        top: how many count as the top.

    Returns:
        Probabilities and rank quantiles of each candidate.
    """
    m = len(score)
    rng = np.random.default_rng(seed)
    drawn = score + sd * rng.standard_normal((draws, m))
    order = np.argsort(-drawn, axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(1, m + 1), order.shape).copy(), axis=1)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=0, method="nearest")
    return Places(
        p_best=(ranks == 1).mean(axis=0),
        p_top5=(ranks <= top).mean(axis=0),
        low=np.asarray(low, dtype=np.float64),
        high=np.asarray(high, dtype=np.float64),
    )
