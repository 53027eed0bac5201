"""What is believed about every candidate, and how finished trials change it: Gaussian arithmetic on plain arrays.

Model (our own choice): the best metric that candidate m reaches by method j is

    y[m, j] = intercept[j] + s * theta[m] + e[m, j]

theta ~ N(ranking's scores, covariance of its errors), errors of kin being correlated: same architecture, same tower
family, same pretraining tag. The spread s of the task is unknown and taken by its posterior on a grid, negative values
included: trials may show that the ranking has the order the wrong way round. The intercepts are all but unknown, their
difference is not. A candidate that disappoints thereby lowers its kin and lifts the rest.

What one more trial of an arm promises: shared by the search and by the sampler of a user's own study. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from vlmsel_auto.records import Candidate, FloatArray, IntArray, Ranking

__all__ = [
    "LOCAL_SD",
    "Belief",
    "Observation",
    "Posterior",
    "belief_of",
    "expected_improvement",
    "kinship",
    "posterior",
    "probability_best",
    "promise",
]

_SPREADS = np.geomspace(0.01, 0.32, 11)  # of a metric in [0, 1] per standard unit of the ranking
_SLOPES = np.concatenate([_SPREADS, -_SPREADS])  # negative: the ranking has the order the wrong way round
_MISLED = 0.05  # probability of that before any trial
_TYPICAL_SPREAD = 0.06
_SPREAD_LOG_SD = 1.0
_INTERCEPT_SD = 1.0  # nothing is known of the task's level
_METHOD_SD = 0.03  # of the difference between methods
_ARM_SHARE = 0.35  # sd of e[m, j] as a share of s
_NOISE_SD = 0.008  # one split, one seed
_UNRANKED_SCORE = -0.5
_UNRANKED_SD = 1.5
_SHARES = (0.40, 0.30, 0.15, 0.15)  # of the error variance: own, architecture, family, pretraining tag
_DRAWS = 4_096


@dataclass(frozen=True, kw_only=True, eq=False)
class Belief:
    """Before any trial: M candidates in standard units of the ranking."""

    candidates: tuple[str, ...]
    mean: FloatArray  # (M,)
    cov: FloatArray  # (M, M)


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """The best metric that one candidate reached by one method."""

    candidate: int  # index into the belief
    method: int  # 0, 1, ...
    value: float  # in [0, 1]
    sd: float = 0.0  # of what is not known of it, such as where a paused trial would have ended


@dataclass(frozen=True, kw_only=True, eq=False)
class Posterior:
    """After some trials: M candidates, J methods, in units of the metric."""

    mean: FloatArray  # (M, J)
    cov: FloatArray  # (J, M, M) between candidates under the same method
    spread: float  # posterior mean of |s|

    @property
    def sd(self) -> FloatArray:
        """(M, J)."""
        variance: FloatArray = np.einsum("jmm->mj", self.cov)
        return np.sqrt(np.maximum(variance, 1e-12))


def kinship(candidates: Sequence[Candidate]) -> FloatArray:
    """Correlation (M, M) of the ranking's errors: a sum of block matrices, so positive definite."""

    def same(values: Sequence[str]) -> FloatArray:
        return np.array([[float(first == second) for second in values] for first in values], dtype=np.float64)

    own, arch, family, tag = _SHARES
    total: FloatArray = (
        own * np.eye(len(candidates), dtype=np.float64)
        + arch * same([each.arch for each in candidates])
        + family * same([each.family for each in candidates])
        + tag * same([each.tag for each in candidates])
    )
    return total


def belief_of(ranking: Ranking, *, candidates: Sequence[Candidate], trust: float = 1.0) -> Belief:
    """The ranking as a Gaussian over ``candidates``; those it could not rank get a low mean and a wide spread.

    Args:
        ranking: scores and standard deviations.
        candidates: M of them, in the order of the arrays.
        trust: standard deviations are divided by it; below 1 the ranking counts for less.

    Raises:
        ValueError: no candidate, one twice, or trust that is not positive.
    """
    names = tuple(each.id for each in candidates)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"candidates must be distinct and at least one, but got {names!r}")
    if not trust > 0:
        raise ValueError(f"trust must be positive, but got {trust!r}")
    lines = {line.candidate: line for line in ranking.ranked}
    mean = np.array([lines[name].score if name in lines else _UNRANKED_SCORE for name in names])
    sd = np.array([max(lines[name].sd, 0.05) if name in lines else _UNRANKED_SD for name in names]) / trust
    return Belief(candidates=names, mean=mean, cov=kinship(candidates) * np.outer(sd, sd))


def _gaussian(
    belief: Belief,
    *,
    spread: float,
    gains: FloatArray,
    rows: IntArray,
    columns: IntArray,
    values: FloatArray,
    doubts: FloatArray,
) -> tuple[FloatArray, FloatArray, float]:
    """Condition on the observations for one spread: mean (M, J), covariance (J, M, M), log marginal likelihood."""
    size, methods = len(belief.mean), len(gains)
    latent = spread**2 * belief.cov
    arm = (_ARM_SHARE * spread) ** 2

    def between(m: IntArray, j: IntArray, n: IntArray, k: IntArray) -> FloatArray:
        same_method = j[:, None] == k[None, :]
        result: FloatArray = latent[np.ix_(m, n)] + _INTERCEPT_SD**2 + same_method * _METHOD_SD**2
        result += same_method * (m[:, None] == n[None, :]) * arm
        return result

    everyone = np.arange(size)
    mean = spread * belief.mean[:, None] + gains[None, :] + 0.5
    observed = between(rows, columns, rows, columns) + np.diag(_NOISE_SD**2 + doubts**2)
    factor = np.linalg.cholesky(observed)
    residual = np.linalg.solve(factor, values - mean[rows, columns])
    means, covs = np.empty((size, methods)), np.empty((methods, size, size))
    for j in range(methods):
        column = np.full(size, j)
        cross = np.linalg.solve(factor, between(rows, columns, everyone, column))  # (n, M)
        means[:, j] = mean[:, j] + cross.T @ residual
        covs[j] = between(everyone, column, everyone, column) - cross.T @ cross
    evidence = -0.5 * float(residual @ residual) - float(np.log(np.diag(factor)).sum())
    return means, covs, evidence


def posterior(belief: Belief, observations: Sequence[Observation], *, gains: Sequence[float] = (0.0,)) -> Posterior:
    """Update the belief by what trials reached.

    Args:
        belief: over M candidates.
        observations: at most one per candidate and method; may be empty.
        gains: expected advantage of each of the J methods over the first, in units of the metric.

    Raises:
        ValueError: an index out of range, a value that is not finite, a candidate and method observed twice.
    """
    arms = [(each.candidate, each.method) for each in observations]
    if len(set(arms)) != len(arms):
        raise ValueError(f"every candidate and method may be observed once, but got {arms!r}")
    for each in observations:
        if not (0 <= each.candidate < len(belief.mean) and 0 <= each.method < len(gains)):
            raise ValueError(f"an observation must name a known candidate and method, but got {each!r}")
        if not math.isfinite(each.value) or not 0 <= each.sd < math.inf:
            raise ValueError(f"an observed metric must be finite, but got {each!r}")
    rows = np.array([each.candidate for each in observations], dtype=np.int64)
    columns = np.array([each.method for each in observations], dtype=np.int64)
    values = np.array([each.value for each in observations], dtype=np.float64)
    doubts = np.array([each.sd for each in observations], dtype=np.float64)
    parts = [
        _gaussian(
            belief,
            spread=float(spread),
            gains=np.asarray(gains, float),
            rows=rows,
            columns=columns,
            values=values,
            doubts=doubts,
        )
        for spread in _SLOPES
    ]
    logs = np.array([evidence for _, _, evidence in parts])
    logs = logs - 0.5 * (np.log(np.abs(_SLOPES) / _TYPICAL_SPREAD) / _SPREAD_LOG_SD) ** 2
    logs = logs + np.log(np.where(_SLOPES > 0, 1 - _MISLED, _MISLED))
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    means = np.stack([mean for mean, _, _ in parts])
    mean = np.einsum("g,gmj->mj", weights, means)
    away = means - mean
    cov = np.einsum("g,gjmn->jmn", weights, np.stack([each for _, each, _ in parts]))
    cov = cov + np.einsum("g,gmj,gnj->jmn", weights, away, away)  # the mixture's moments
    return Posterior(mean=mean, cov=cov, spread=float(weights @ np.abs(_SLOPES)))


def probability_best(mean: FloatArray, cov: FloatArray, *, seed: int = 0, draws: int = _DRAWS) -> FloatArray:
    """Probability (M,) of being the largest component of N(mean, cov), by seeded draws."""
    jitter = 1e-10 * max(1.0, float(np.trace(cov)) / len(mean)) * np.eye(len(mean))
    factor = np.linalg.cholesky(cov + jitter)
    sample = mean + np.random.default_rng(seed).standard_normal((draws, len(mean))) @ factor.T
    return np.bincount(sample.argmax(axis=1), minlength=len(mean)) / draws


def expected_improvement(mean: FloatArray, sd: FloatArray, *, best: float) -> FloatArray:
    """E[max(0, y - best)] of y ~ N(mean, sd^2), elementwise (Mockus 1978)."""
    scaled = (mean - best) / np.maximum(sd, 1e-12)
    density = np.exp(-0.5 * scaled**2) / math.sqrt(2 * math.pi)
    return np.maximum((mean - best) * ndtr(scaled) + sd * density, 0.0)


_LOCAL_LOSS = 0.01  # of the metric: what other hyperparameters of a tried arm lose on average
LOCAL_SD = 0.02  # how much their metrics vary
_AGAIN = 0.25  # what is left of an arm's promise after a trial that gave nothing


def promise(mean: float, sd: float, *, best: float, reached: float | None, tries: int) -> float:
    """Expected improvement over ``best``.

    Args:
        mean: believed of the arm.
        sd: likewise.
        best: metric to beat.
        reached: the arm's own best; hyperparameters are then all that can change, and less with every trial.
        tries: trials of the arm so far, those that failed or run elsewhere included.
    """
    if reached is not None:
        mean, sd = reached - _LOCAL_LOSS, LOCAL_SD / (1 + tries / 4) ** 0.5
    gain = float(expected_improvement(np.array([mean]), np.array([sd]), best=best)[0])
    return gain if reached is not None else gain * _AGAIN**tries
