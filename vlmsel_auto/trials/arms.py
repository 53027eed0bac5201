"""Beliefs over whole settings (candidate and hyperparameters), learned from trials on other tasks. Pure arrays.

An arm is one candidate under one setting. Past trials give a mean and a covariance over arms: which arms are good, and
which are good together. On a new task the first results say how far the past can be trusted: the posterior averages two
Gaussian models by their evidence, one with the learned mean and covariance and one that knows only that arms of one
candidate, and of one setting, resemble each other. A wrong past therefore loses its weight after a few trials.

Empirical Bayes, our own choice of form: differences near the top of a task count more (`warp`), and the learned
covariance is a product of one between candidates (exchangeable) and one between settings, with its own variance for
each arm: settings that fail for some candidates and not for others are the uncertain ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmsel_auto.records import FloatArray, IntArray
from vlmsel_auto.trials.belief import expected_improvement

__all__ = ["ArmBelief", "ArmPosterior", "learn_arms", "next_arm", "posterior_arms", "warp"]

_TOP = 0.25  # of the spread: differences to the best that are larger than this are compressed
_VAGUE = 0.02  # share of the vague covariance in the learned one
_SCALES = np.geomspace(0.2, 3.0, 7)  # spread of the new task against a typical past one
_LEVEL = 10.0  # standard deviation of the new task's level, in spreads: unknown
_NOISE = 0.05  # in spreads
_STALL = 3  # trials without a better one
_DOUBT = 1e-6
_TRUST = 0.8  # prior probability of the learned model


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmBelief:
    """What past trials say of A arms, in warped units of the objective."""

    candidates: IntArray  # (A,) index of each arm's candidate
    settings: IntArray  # (A,) index of each arm's setting
    mean: FloatArray  # (A,) learned, centred
    cov: FloatArray  # (A, A) learned
    vague: FloatArray  # (A, A) of the model that knows only the arms' structure
    spread: float  # typical standard deviation over arms within a task, of warped values
    top: float  # scale of `warp`, in units of the objective


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmPosterior:
    """Mean and standard deviation of every arm on the new task (warped), and how far the past is trusted."""

    mean: FloatArray  # (A,)
    sd: FloatArray  # (A,)
    trust: float  # posterior probability of the learned model


def _same(labels: IntArray) -> FloatArray:
    same: FloatArray = np.equal.outer(labels, labels).astype(np.float64)
    return same


def warp(values: FloatArray, *, best: FloatArray | float, top: float) -> FloatArray:
    """Distance to the best, compressed: -top * log(1 + (best - value) / top). 0 at the best, slope 1 near it."""
    warped: FloatArray = -top * np.log1p((best - values) / top)
    return warped


def _product(sample: FloatArray, *, candidates: IntArray, settings: IntArray, floor: float) -> FloatArray:
    """(A, A) = sd sd (share + (1 - share) [same candidate]) R[setting, setting], all parts pooled from ``sample``."""
    variance = np.diag(sample)
    count = int(settings.max()) + 1
    pooled = np.array([variance[settings == each].mean() if (settings == each).any() else 0.0 for each in range(count)])
    sd = np.sqrt(np.maximum(0.5 * variance + 0.5 * pooled[settings], floor**2))
    correlation = sample / np.outer(sd, sd)
    same_candidate, same_setting = _same(candidates), _same(settings)
    one_hot = np.eye(count)[settings]
    pairs = one_hot.T @ same_candidate @ one_hot
    between = (one_hot.T @ (correlation * same_candidate) @ one_hot) / np.maximum(pairs, 1.0)
    size, vectors = np.linalg.eigh((between + between.T) / 2)
    between = (vectors * np.maximum(size, 1e-6)) @ vectors.T
    scale = np.sqrt(np.diag(between))
    between = between / np.outer(scale, scale)
    others = same_setting * (1 - same_candidate)
    share = max(0.0, float((correlation * others).sum()) / max(1.0, float(others.sum())))
    product: FloatArray = (share + (1 - share) * same_candidate) * between[np.ix_(settings, settings)]
    product *= np.outer(sd, sd)
    return product


def learn_arms(values: FloatArray, *, candidates: IntArray, settings: IntArray) -> ArmBelief:
    """Learn from past tasks.

    Args:
        values: (S, A) objective of every arm on S tasks, larger is better, NaN where it was not tried.
        candidates: (A,) the arm's candidate.
        settings: (A,) the arm's setting.

    Raises:
        ValueError: shapes that do not fit, or no task with two known arms.
    """
    if values.ndim != 2 or values.shape[1:] != candidates.shape or candidates.shape != settings.shape:  # noqa: PLR2004 - tasks x arms
        raise ValueError(f"values must be (S, A) for A arms, but got {values.shape} and {candidates.shape}")
    known = ~np.isnan(values)
    kept = known.sum(axis=1) > 1
    if not kept.any():
        raise ValueError(f"at least one past task needs two known arms, but got {known.sum(axis=1).tolist()}")
    values, known = values[kept], known[kept]
    centred = values - np.nanmean(values, axis=1, keepdims=True)
    spread = float(np.sqrt(np.nanmean(centred**2))) or 1.0
    top = _TOP * spread
    warped = warp(values, best=np.nanmax(values, axis=1, keepdims=True), top=top)
    centred = warped - np.nanmean(warped, axis=1, keepdims=True)
    spread = float(np.sqrt(np.nanmean(centred**2))) or 1.0
    counts = known.sum(axis=0)
    mean = np.where(known, centred, 0.0).sum(axis=0) / (counts + 1.0)  # one pseudo-task at zero
    away = np.where(known, centred - mean, 0.0)
    pairs = known.astype(np.float64).T @ known.astype(np.float64)
    sample = (away.T @ away) / (pairs + 1.0)
    same_candidate, same_setting = _same(candidates), _same(settings)
    vague = spread**2 * (0.45 * same_candidate + 0.35 * same_setting + 0.20 * np.eye(len(mean)))
    return ArmBelief(
        candidates=candidates,
        settings=settings,
        mean=mean,
        cov=_product(sample, candidates=candidates, settings=settings, floor=1e-4 * spread) + _VAGUE * vague,
        vague=vague,
        spread=spread,
        top=top,
    )


def posterior_arms(
    belief: ArmBelief, *, tried: Sequence[int], values: Sequence[float], trust: float = _TRUST
) -> ArmPosterior:
    """Update by the arms tried on the new task; the same arm may occur more than once.

    ``trust`` in (0, 1) is the probability of the learned model before the first trial.

    Raises:
        ValueError: an arm out of range, a value that is not finite, or different lengths.
    """
    rows = np.asarray(tried, dtype=np.int64)
    found = np.asarray(values, dtype=np.float64)
    size = len(belief.mean)
    if rows.shape != found.shape or ((rows < 0) | (rows >= size)).any() or not np.isfinite(found).all():
        raise ValueError(f"tried arms must lie in 0..{size - 1} with finite values, but got {tried!r} and {values!r}")
    if len(found):
        found = warp(found, best=float(found.max()), top=belief.top)
    level = (_LEVEL * belief.spread) ** 2
    noise = (_NOISE * belief.spread) ** 2 * np.eye(len(rows))
    centre = float(found.mean()) if len(found) else 0.0
    means, variances, logs, past = [], [], [], []
    for scale in _SCALES:
        prior = -0.5 * (math.log(scale) / 0.7) ** 2
        for learned in (True, False):
            mean = scale * belief.mean if learned else np.zeros(size)
            cov = scale**2 * (belief.cov if learned else belief.vague) + level
            factor = np.linalg.cholesky(cov[np.ix_(rows, rows)] + noise)
            residual = np.linalg.solve(factor, found - centre - mean[rows])
            cross = np.linalg.solve(factor, cov[rows])
            means.append(centre + mean + cross.T @ residual)
            variances.append(np.maximum(np.diag(cov) - (cross**2).sum(axis=0), 1e-12))
            evidence = -0.5 * float(residual @ residual) - float(np.log(np.diag(factor)).sum())
            logs.append(evidence + prior + math.log(trust if learned else 1 - trust))
            past.append(learned)
    weights = np.exp(np.asarray(logs) - max(logs))
    weights /= weights.sum()
    mean = weights @ np.stack(means)
    variance = weights @ (np.stack(variances) + (np.stack(means) - mean) ** 2)
    return ArmPosterior(mean=mean, sd=np.sqrt(variance), trust=float(weights @ np.asarray(past, dtype=np.float64)))


def next_arm(
    belief: ArmBelief, *, tried: Sequence[int], values: Sequence[float], costs: FloatArray | None = None
) -> int | None:
    """The untried arm with the largest expected improvement (per cost, when given); None when all were tried.

    Before any trial it is the arm with the largest learned mean. When the leaders have stalled, every second arm is
    chosen as if the past were not known: a past that misleads costs no more than every second trial.
    """
    open_arms = np.setdiff1d(np.arange(len(belief.mean)), np.asarray(tried, dtype=np.int64))
    if not len(open_arms):
        return None
    if not len(tried):
        return int(belief.mean.argmax())
    since = len(values) - 1 - int(np.argmax(values))
    doubt = since >= _STALL and (since - _STALL) % 2 == 0
    now = posterior_arms(belief, tried=tried, values=values, trust=_DOUBT if doubt else _TRUST)
    gain = expected_improvement(now.mean, now.sd, best=0.0)  # of warped values, the best is 0
    if costs is not None:
        gain = gain / costs
    return int(open_arms[gain[open_arms].argmax()])
