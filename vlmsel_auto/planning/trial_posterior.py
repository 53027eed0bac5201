"""What is believed of every candidate before and after trials: Gaussian arithmetic on plain arrays.

Model: the best metric that candidate m reaches by method j is

    y[m, j] = intercept[j] + s * theta[m] + e[m, j]

theta ~ N(ranking's scores, covariance of its errors), errors being correlated between models that share architecture,
tower family or pretraining (`ranks.error_correlation`). The spread s of the task is unknown and taken by its posterior
on a grid, negative values included: trials may show that the ranking has the order the wrong way round. The intercepts
are all but unknown, their difference is not. A candidate that disappoints thereby lowers those like it and lifts the
rest. Every constant is one of `Policy`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtr

from vlmsel_auto.planning.gaussian import Gaussians, given
from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.ranks import error_correlation
from vlmsel_auto.records import Candidate, FloatArray, Ranking

_GRID: Final = np.linspace(-1.75, 1.75, 11)  # logarithms of s against its median; their standard deviation is 1
_LEVEL_SD: Final = 1.0  # of the task's level: nothing is known
_LEAST_SD: Final = 0.05  # of a ranked candidate, in standard units
_UNRANKED: Final = (-0.5, 1.5)  # score and standard deviation of candidates that the ranking lacks, in standard units


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialPrior:
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
    sd: float = 0.0  # of what is not known of it, such as where a pruned trial would have ended


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialPosterior:
    """After some trials: M candidates, J methods, in units of the metric."""

    mean: FloatArray  # (M, J)
    cov: FloatArray  # (J, M, M) between candidates under the same method
    spread: float  # posterior mean of |s|

    @property
    def sd(self) -> FloatArray:
        """(M, J)."""
        variance: FloatArray = np.einsum("jmm->mj", self.cov)
        return np.sqrt(np.maximum(variance, 1e-12))


def slopes_of(policy: Policy) -> FloatArray:
    """Grid of s, the ranking's order first and then its reverse (negative values)."""
    grid = policy.typical_spread * np.exp(_GRID)
    return np.concatenate([grid, -grid])


def trial_prior(ranking: Ranking, *, candidates: Sequence[Candidate]) -> TrialPrior:
    """The ranking as a Gaussian over ``candidates``; those it could not rank get a low mean and a wide spread.

    Args:
        ranking: scores and standard deviations.
        candidates: M of them, in the order of the arrays.

    Raises:
        ValueError: no candidate, or one twice.
    """
    names = tuple(each.id for each in candidates)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"candidates must be distinct and at least one, but got {names!r}")
    lines = {line.candidate: line for line in ranking.ranked}
    score, wide = _UNRANKED
    mean = np.array([lines[name].score if name in lines else score for name in names])
    sd = np.array([max(lines[name].sd, _LEAST_SD) if name in lines else wide for name in names])
    return TrialPrior(candidates=names, mean=mean, cov=error_correlation(candidates) * np.outer(sd, sd))


def _prior(belief: TrialPrior, *, gains: FloatArray, policy: Policy) -> Gaussians:
    """Over J x M metrics, method by method, for each s."""
    slopes = slopes_of(policy)
    size, count = len(belief.mean), len(gains)
    same_method, everyone = np.kron(np.eye(count), np.ones((size, size))), np.eye(count * size)
    own = np.tile(belief.cov, (count, count)) + policy.arm_share**2 * everyone
    others = _LEVEL_SD**2 + policy.method_sd**2 * same_method
    logs = -0.5 * (np.log(np.abs(slopes) / policy.typical_spread)) ** 2
    return Gaussians(
        mean=slopes[:, None] * np.tile(belief.mean, count) + np.repeat(gains, size) + 0.5,
        cov=(slopes**2)[:, None, None] * own + others,
        logs=logs + np.log(np.where(slopes > 0, 1 - policy.reversed_order, policy.reversed_order)),
    )


def trial_posterior(
    belief: TrialPrior, observations: Sequence[Observation], *, gains: Sequence[float] = (0.0,), policy: Policy = POLICY
) -> TrialPosterior:
    """Update the belief by what trials reached.

    Args:
        belief: over M candidates.
        observations: at most one per candidate and method, finite; may be empty.
        gains: expected advantage of each of the J methods over the first, in units of the metric.
        policy: of the prior.
    """
    size, count = len(belief.mean), len(gains)
    found = given(
        _prior(belief, gains=np.asarray(gains, dtype=np.float64), policy=policy),
        seen=np.array([each.method * size + each.candidate for each in observations], dtype=np.int64),
        values=np.array([each.value for each in observations], dtype=np.float64),
        noise=np.array([policy.noise_sd**2 + each.sd**2 for each in observations], dtype=np.float64),
    )
    weights, means = found.weights, found.mean.reshape(-1, count, size)
    mean = np.tensordot(weights, means, axes=1)  # (J, M)
    away = np.swapaxes(means - mean, 0, 1)  # (J, G, M)
    within = np.tensordot(weights, found.cov, axes=1).reshape(count, size, count, size)
    cov = np.einsum("jajb->jab", within)
    cov = cov + np.swapaxes(away * weights[:, None], 1, 2) @ away  # the mixture's moments
    slopes = slopes_of(policy)
    return TrialPosterior(mean=mean.T, cov=cov, spread=float(weights @ np.abs(slopes)))


def expected_improvement(mean: FloatArray, sd: FloatArray, *, best: FloatArray | float) -> FloatArray:
    """E[max(0, y - best)] of y ~ N(mean, sd^2), elementwise (Mockus 1978)."""
    scaled = (mean - best) / np.maximum(sd, 1e-12)
    density = np.exp(-0.5 * scaled**2) / math.sqrt(2 * math.pi)
    return np.maximum((mean - best) * ndtr(scaled) + sd * density, 0.0)


def acquisition(
    mean: float,
    sd: float,
    *,
    best: float,
    reached: float | None,
    tries: int,
    error: float = 0.0,
    policy: Policy = POLICY,
) -> float:
    """What one more trial of a candidate and method improves the choice by: the knowledge gradient.

    The trial moves the belief by a normal amount of standard deviation sd^2 / sqrt(sd^2 + error^2) (Frazier, Powell,
    Dayanik 2008); without an error that is expected improvement (Mockus 1978).

    Args:
        mean: believed of it.
        sd: likewise.
        best: metric to beat.
        reached: its own best; settings are then all that can change, and less with every trial.
        tries: trials of it so far, those that failed or run elsewhere included.
        error: standard error of what the trial would be measured by.
        policy: what other settings lose and vary.
    """
    if reached is not None:
        mean, sd = reached - policy.local_loss, policy.local_sd / (1 + tries / 4) ** 0.5
    # E[max(0, min(1, y) - best)]: nothing is better than all right
    gain = max(0.0, _gain(mean, sd, best=best, error=error) - _gain(mean, sd, best=1.0, error=error))
    return gain if reached is not None else gain * policy.repeat**tries


def worth_of_measuring(mean: float, sd: float, *, other: float, error: float) -> float:
    """By how much the better of two models is expected to be chosen better, if one of them is measured once more.

    The knowledge gradient of two alternatives that err apart.

    Args:
        mean: believed of the one that is measured.
        sd: of that belief.
        other: believed of the other one.
        error: standard error of the measurement.
    """
    return _gain(-abs(mean - other), sd, best=0.0, error=error)


def _gain(mean: float, sd: float, *, best: float, error: float) -> float:
    """E[max(0, m - best)] of the belief m after one measurement with this error."""
    moves = sd**2 / max(math.hypot(sd, error), 1e-12)
    return float(expected_improvement(np.array([mean]), np.array([moves]), best=best)[0])
