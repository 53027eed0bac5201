"""Beliefs over whole settings (candidate and hyperparameters), learned from trials on other tasks. Pure arrays.

An arm is one candidate under one setting. On a new task the values of the arms, measured as compressed distances to the
best (`warp`), are taken to be

    y = level + s * (b_candidate * P_candidate + b_setting * P_setting + b_pair * P_pair + e)

with P the past mean split into what the candidates share, what the settings share and what is left; s the spread of
this task; e ~ N(0, a covariance learned from how past tasks differ from their mean). Three components differ in what
the past is worth, and are averaged by their evidence after every trial:

    past           b ~ N(1, 0.6^2): the past holds, more or less
    pattern        b ~ N(0, 1^2): the past's differences matter, but not their sign: it may be reversed in part
    uninformative  b = 0, e: arms of one candidate, and of one setting, resemble each other; nothing else is known

A wrong past therefore loses its weight after a few trials, and a reversed one is used in reverse. How often the past
holds is itself learned: each past task is explained by the others under each component, and what explains it
counts. Empirical Bayes (docs/choices.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlmsel_auto.planning.gaussian import Gaussians, given
from vlmsel_auto.planning.trial_posterior import expected_improvement
from vlmsel_auto.records import FloatArray, IntArray

_TOP = 0.25  # of the spread: differences to the best that are larger than this are compressed
_UNINFORMATIVE = 0.02  # share of the uninformative covariance in the learned one
_SHARES = (0.45, 0.35, 0.20)  # of the uninformative variance: same candidate, same setting, the arm's own
_SPREADS = np.geomspace(0.25, 2.5, 5)  # s: spread of the new task against a typical past one
_SPREAD_LOG_SD = 0.7
_SLOPE_SDS = (0.6, 1.0)  # of b under `past` and `pattern`
_WEIGHTS = (0.70, 0.15, 0.15)  # of past, pattern and uninformative before any past task is known
_WEIGHED = 4.0  # past tasks that these count for
_LEAST = 1e-3  # eigenvalue of a correlation matrix
_LEVEL = 10.0  # standard deviation of the new task's level, in spreads: unknown
_NOISE = 0.05  # in spreads


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmBelief:
    """What past trials say of A arms, in warped units of the objective."""

    mean: FloatArray  # (A,) learned, centred
    parts: FloatArray  # (3, A) of the mean: what candidates share, what settings share, what is left
    cov: FloatArray  # (A, A) learned, of one task about the mean
    uninformative: FloatArray  # (A, A) of the model that knows only the arms' structure
    spread: float  # typical standard deviation over arms within a task, of warped values
    top: float  # scale of `warp`, in units of the objective
    weights: tuple[float, float, float] = _WEIGHTS  # of past, pattern and uninformative on a new task


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmPosterior:
    """What is believed of every arm on the new task, in warped units: 0 is the best value seen."""

    mean: FloatArray  # (A,)
    gain: FloatArray  # (A,) expected improvement on the best value seen; before any trial the learned mean
    trust: float  # probability of `past`
    pattern: float  # probability of `pattern`


def warp(values: FloatArray, *, best: FloatArray | float, top: float) -> FloatArray:
    """Distance to the best, compressed: -top * log(1 + (best - value) / top). 0 at the best, slope 1 near it."""
    warped: FloatArray = -top * np.log1p((best - values) / top)
    return warped


def _same(labels: IntArray) -> FloatArray:
    same: FloatArray = np.equal.outer(labels, labels).astype(np.float64)
    return same


def _means_by(values: FloatArray, labels: IntArray) -> FloatArray:
    """(A,) mean of ``values`` over the arms of the same label."""
    sums = np.bincount(labels, weights=values)
    counts = np.maximum(np.bincount(labels), 1)
    means: FloatArray = (sums / counts)[labels]
    return means


def _split(mean: FloatArray, *, candidates: IntArray, settings: IntArray) -> FloatArray:
    """(3, A) main effect of the candidates, of the settings, and the rest, which sum to the centred mean."""
    centred = mean - mean.mean()
    by_candidate = _means_by(centred, candidates)
    by_setting = _means_by(centred - by_candidate, settings)
    return np.stack([by_candidate, by_setting, centred - by_candidate - by_setting])


def _correlation(matrix: FloatArray) -> FloatArray:
    """The nearest positive semi-definite matrix by eigenvalues, scaled to a unit diagonal."""
    size, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    positive = (vectors * np.maximum(size, _LEAST)) @ vectors.T
    scale = np.sqrt(np.diag(positive))
    scaled: FloatArray = positive / np.outer(scale, scale)
    return scaled


def _shared(correlation: FloatArray, labels: IntArray) -> float:
    """Mean correlation between different labels, at least 0, of a matrix that is summed within labels."""
    one_hot = np.eye(int(labels.max()) + 1)[labels]
    between = _correlation(one_hot.T @ correlation @ one_hot)
    count = len(between)
    return max(0.0, float(between.sum() - count) / max(1, count * (count - 1)))


def _product(sample: FloatArray, *, candidates: IntArray, settings: IntArray, floor: float) -> FloatArray:
    """(A, A) = sd sd (share + (1 - share) [same candidate]) R[setting, setting], all parts pooled from ``sample``.

    Few past tasks against many arms: candidates are exchangeable, and each arm keeps half of its own variance. Settings
    that fail for some candidates and not for others are thereby the uncertain ones.
    """
    variance = np.diag(sample)
    sd = np.sqrt(np.maximum(0.5 * variance + 0.5 * _means_by(variance, settings), floor**2))
    correlation = sample / np.outer(sd, sd)
    same_candidate = _same(candidates)
    one_hot = np.eye(int(settings.max()) + 1)[settings]
    pairs = one_hot.T @ same_candidate @ one_hot
    between = _correlation((one_hot.T @ (correlation * same_candidate) @ one_hot) / np.maximum(pairs, 1.0))
    share = _shared(correlation * _same(settings), candidates)
    product: FloatArray = (share + (1 - share) * same_candidate) * between[np.ix_(settings, settings)]
    product *= np.outer(sd, sd)
    return product


def learn_arms(values: FloatArray, *, candidates: IntArray, settings: IntArray) -> ArmBelief:
    """Learn from past tasks.

    Args:
        values: (S, A) objective of every arm on S tasks, larger is better, NaN where it was not tried.
        candidates: (A,) the arm's candidate, 0, 1, ...
        settings: (A,) the arm's setting, 0, 1, ...

    Raises:
        ValueError: shapes that do not fit, or no task with two known arms.
    """
    if values.ndim != 2 or values.shape[1:] != candidates.shape or candidates.shape != settings.shape:  # noqa: PLR2004 - tasks x arms
        raise ValueError(f"values must be (S, A) for A arms, but got {values.shape} and {candidates.shape}")
    known = ~np.isnan(values)
    kept = known.sum(axis=1) > 1
    if not kept.any():
        raise ValueError(f"at least one past task needs two known arms, but got {known.sum(axis=1).tolist()}")
    belief = _learned(values[kept], candidates=candidates, settings=settings)
    return replace(belief, weights=_weights(values[kept], candidates=candidates, settings=settings))


def _weights(values: FloatArray, *, candidates: IntArray, settings: IntArray) -> tuple[float, float, float]:
    """How often each model is what explains a past task best from the others, by one step from the default weights."""
    counts = _WEIGHED * np.array(_WEIGHTS)
    for place in range(len(values) if len(values) > 1 else 0):
        belief = _learned(np.delete(values, place, axis=0), candidates=candidates, settings=settings)
        arms = np.flatnonzero(~np.isnan(values[place]))
        now = posterior_arms(belief, tried=arms.tolist(), values=values[place, arms].tolist())
        counts += (now.trust, now.pattern, 1 - now.trust - now.pattern)
    past, pattern, uninformative = (counts / counts.sum()).tolist()
    return past, pattern, uninformative


def _learned(values: FloatArray, *, candidates: IntArray, settings: IntArray) -> ArmBelief:
    """The belief with the default weights; every one of the S tasks knows two arms."""
    known = ~np.isnan(values)
    spread = float(np.sqrt(np.nanmean((values - np.nanmean(values, axis=1, keepdims=True)) ** 2))) or 1.0
    top = _TOP * spread
    warped = warp(values, best=np.nanmax(values, axis=1, keepdims=True), top=top)
    centred = warped - np.nanmean(warped, axis=1, keepdims=True)
    spread = float(np.sqrt(np.nanmean(centred**2))) or 1.0
    mean = np.where(known, centred, 0.0).sum(axis=0) / (known.sum(axis=0) + 1.0)  # one pseudo-task at zero
    away = np.where(known, centred - mean, 0.0)
    pairs = known.astype(np.float64).T @ known.astype(np.float64)
    sample = (away.T @ away) / (pairs + 1.0)
    by_candidate, by_setting, own = _SHARES
    structure = by_candidate * _same(candidates) + by_setting * _same(settings) + own * np.eye(len(mean))
    uninformative = spread**2 * structure
    cov = _product(sample, candidates=candidates, settings=settings, floor=1e-4 * spread)
    return ArmBelief(
        mean=mean,
        parts=_split(mean, candidates=candidates, settings=settings),
        cov=cov + _UNINFORMATIVE * uninformative,
        uninformative=uninformative,
        spread=spread,
        top=top,
    )


def _prior(belief: ArmBelief) -> Gaussians:
    """Past, pattern and uninformative for each of the spreads."""
    slopes = belief.parts.T @ belief.parts
    past, pattern = (belief.cov + sd**2 * slopes for sd in _SLOPE_SDS)
    level = (_LEVEL * belief.spread) ** 2
    zero = np.zeros_like(belief.mean)
    means = [each for s in _SPREADS for each in (s * belief.mean, zero, zero)]
    covs = [s**2 * each + level for s in _SPREADS for each in (past, pattern, belief.uninformative)]
    logs = [-0.5 * (math.log(s) / _SPREAD_LOG_SD) ** 2 + math.log(w) for s in _SPREADS for w in belief.weights]
    return Gaussians(mean=np.stack(means), cov=np.stack(covs), logs=np.array(logs))


def posterior_arms(belief: ArmBelief, *, tried: Sequence[int], values: Sequence[float]) -> ArmPosterior:
    """Update by the arms tried on the new task; the same arm may occur more than once.

    Raises:
        ValueError: an arm out of range, a value that is not finite, or different lengths.
    """
    rows = np.asarray(tried, dtype=np.int64)
    found = np.asarray(values, dtype=np.float64)
    size = len(belief.mean)
    if rows.shape != found.shape or ((rows < 0) | (rows >= size)).any() or not np.isfinite(found).all():
        raise ValueError(f"tried arms must lie in 0..{size - 1} with finite values, but got {tried!r} and {values!r}")
    centre = 0.0
    if len(found):
        found = warp(found, best=float(found.max()), top=belief.top)
        centre = float(found.mean())
    noise = np.full(len(rows), (_NOISE * belief.spread) ** 2)
    now = given(_prior(belief), seen=rows, values=found - centre, noise=noise)
    means, variances, shares = now.mean + centre, now.variance, now.weights
    by_model = shares.reshape(len(_SPREADS), len(_WEIGHTS)).sum(axis=0)
    return ArmPosterior(
        mean=shares @ means,
        gain=shares @ expected_improvement(means, np.sqrt(variances), best=0.0) if len(found) else belief.mean,
        trust=float(by_model[0]),
        pattern=float(by_model[1]),
    )
