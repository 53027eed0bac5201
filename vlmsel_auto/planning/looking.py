"""Which pretrained model to load and look at next: a posterior over M candidates on a new task. Pure arrays.

A look loads one candidate and measures its accuracy on the user's labelled images, with a standard error. Before any
look, and between looks, published accuracies on other data sets tell which candidates rise and fall together. Given
scenario j of `planning.scenarios` and spread s, the accuracies of the new task are

    y ~ level + s * N(z_j', h^2 cov),    z_j' = mean + sqrt(1 - h^2) (z_j - mean)

a kernel density over the data sets whose kernels keep mean and covariance (Liu & West 2001, eq. 10.3.11): h = 1 is one
Gaussian process over candidates, h = 0 says that the task is one of those published. Unlike one Gaussian it keeps what
is skewed: a candidate that is seldom the best but far ahead when it is. Three stories of the table are weighed by their
evidence after every look (`Policy` of `planning.posterior` has the same thought):

    published  as above
    reversed   the same with every standing negated: the table has the order the wrong way round
    vague      y ~ level + s * N(0, v I): the table tells nothing of this task

The level is all but unknown. Few noisy looks favour single scenarios too much, so that the value of a look is averaged
over scenarios whose weights are only partly updated within a story, the rest staying at the prior (contamination of a
posterior, after Berger & Berliner 1986). The candidate to look at next is the one whose true accuracy is expected to
improve most on the best of those seen (expected improvement, Mockus 1978), per unit of cost when costs are given. The
choice after k looks is the highest posterior mean among those looked at: what was never loaded cannot be used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vlmsel_auto.planning.posterior import expected_improvement
from vlmsel_auto.planning.scenarios import Scenarios
from vlmsel_auto.records import FloatArray, IntArray

_NEGLIGIBLE: Final = 1e-6  # weight of a part of the mixture that is not computed


@dataclass(frozen=True, kw_only=True, slots=True)
class LookingPolicy:
    """How looks are valued: our own choices (docs/looking.md says what measured them)."""

    bandwidth: float = 0.5  # h in (0, 1]
    hedge: float = 0.8  # share of scenario weights that looks do not change when the next look is valued
    p_reversed: float = 0.01
    p_vague: float = 0.03
    spreads: tuple[float, ...] = (0.4, 0.63, 1.0, 1.6, 2.5)  # grid of s
    spread_log_sd: float = 0.7  # of s around 1
    level_sd: float = 1.0  # accuracy: nothing is known of it

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: a probability, the bandwidth or a spread out of range.
        """
        if not 0 < self.bandwidth <= 1:
            raise ValueError(f"bandwidth must lie in (0, 1], but got {self.bandwidth!r}")
        shares = (self.hedge, self.p_reversed, self.p_vague, self.p_reversed + self.p_vague)
        if not all(0 <= each <= 1 for each in shares) or shares[-1] == 1:
            raise ValueError(f"hedge, p_reversed and p_vague must be shares that leave one over, but got {shares!r}")
        if not self.spreads or min(self.spreads) <= 0 or self.spread_log_sd <= 0 or self.level_sd <= 0:
            raise ValueError(f"spreads and standard deviations must be positive, but got {self!r}")


DEFAULT: Final = LookingPolicy()


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a loaded candidate reached on the user's labelled images."""

    candidate: int  # index into the scenarios
    accuracy: float  # in [0, 1]
    sd: float  # standard error of it, at least 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Outlook:
    """What is believed of M candidates after some looks, in units of accuracy."""

    mean: FloatArray  # (M,)
    sd: FloatArray  # (M,); before the first look nearly all of it is the level's
    p_published: float  # probability of each story
    p_reversed: float
    p_vague: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """One story under one spread: a mixture over its J scenarios, given n looks."""

    story: int
    means: FloatArray  # (M, J)
    variance: FloatArray  # (M,)
    seen: FloatArray  # (n, M) covariance of those seen with all
    prior: FloatArray  # (J,) weights, which sum to 1 over all parts
    weights: FloatArray  # (J,) likewise, given the looks


def _check(scenarios: Scenarios, looks: Sequence[Look]) -> None:
    places = [each.candidate for each in looks]
    if len(set(places)) != len(places):
        raise ValueError(f"every candidate may be looked at once, but got {places!r}")
    for each in looks:
        if not 0 <= each.candidate < len(scenarios.mean):
            raise ValueError(f"a look must name one of {len(scenarios.mean)} candidates, but got {each!r}")
        if not 0 <= each.accuracy <= 1 or not 0 <= each.sd < math.inf:
            raise ValueError(f"a look needs an accuracy in [0, 1] and a standard error, but got {each!r}")


def _stories(scenarios: Scenarios, policy: LookingPolicy) -> list[tuple[float, FloatArray, FloatArray]]:
    """Probability, scenario means (M, J) and covariance (M, M) of each story at s = 1."""
    kept = math.sqrt(1 - policy.bandwidth**2)
    means = scenarios.mean[:, None] + kept * (scenarios.standings - scenarios.mean[:, None])
    kernel = policy.bandwidth**2 * scenarios.cov
    variance = float(np.mean(scenarios.mean**2 + np.diag(scenarios.cov)))
    size = len(scenarios.mean)
    return [
        (1 - policy.p_reversed - policy.p_vague, means, kernel),
        (policy.p_reversed, -means, kernel),
        (policy.p_vague, np.zeros((size, 1)), variance * np.eye(size)),
    ]


def _condition(
    means: FloatArray, cov: FloatArray, *, level: float, seen: IntArray, values: FloatArray, noise: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Means (M, J), variances (M,) and covariances (n, M) given n looks, and the log likelihoods (J,)."""
    cross = cov[seen] + level  # (n, M)
    factor = np.linalg.cholesky(cross[:, seen] + np.diag(noise + 1e-12))
    residual = np.linalg.solve(factor, values[:, None] - means[seen])  # (n, J)
    half = np.linalg.solve(factor, cross)
    variance = np.diag(cov) + level - np.sum(half**2, axis=0)
    logs = -0.5 * np.sum(residual**2, axis=0) - np.log(np.diag(factor)).sum()
    return means + half.T @ residual, variance, cross - half[:, seen].T @ half, logs


def _parts(scenarios: Scenarios, looks: Sequence[Look], policy: LookingPolicy) -> list[_Part]:
    """The mixture given the looks."""
    seen = np.array([each.candidate for each in looks], dtype=np.int64)
    values = np.array([each.accuracy for each in looks], dtype=np.float64) - 0.5  # the level is N(.5, level_sd^2)
    noise = np.array([each.sd for each in looks], dtype=np.float64) ** 2
    spread_logs = -0.5 * (np.log(policy.spreads) / policy.spread_log_sd) ** 2
    spread_weights = np.exp(spread_logs) / np.exp(spread_logs).sum()
    found, logs = [], []
    for story, (share, means, cov) in enumerate(_stories(scenarios, policy)):
        if not share:
            continue
        for spread, weight in zip(policy.spreads, spread_weights, strict=True):
            prior = np.full(means.shape[1], share * weight / means.shape[1])
            given = _condition(
                spread * means, spread**2 * cov, level=policy.level_sd**2, seen=seen, values=values, noise=noise
            )
            found.append((story, prior, *given[:3]))
            logs.append(given[3])
    highest = max(float(each.max()) for each in logs)
    joint = [prior * np.exp(each - highest) for (_, prior, *_), each in zip(found, logs, strict=True)]
    total = sum(float(each.sum()) for each in joint)
    return [
        _Part(story=story, means=means, variance=variance, seen=cross, prior=prior, weights=each / total)
        for (story, prior, means, variance, cross), each in zip(found, joint, strict=True)
    ]


def _story_weights(parts: Sequence[_Part]) -> tuple[float, float, float]:
    published, reverse, vague = (
        sum(float(each.weights.sum()) for each in parts if each.story == story) for story in range(3)
    )
    return published, reverse, vague


def outlook(scenarios: Scenarios, looks: Sequence[Look], *, policy: LookingPolicy = DEFAULT) -> Outlook:
    """Update what the published table says by what looks found.

    Args:
        scenarios: of M candidates.
        looks: at most one for each candidate; may be empty.
        policy: of the prior.

    Raises:
        ValueError: a candidate out of range or looked at twice, an accuracy or standard error out of range.
    """
    _check(scenarios, looks)
    parts = _parts(scenarios, looks, policy)
    mean = 0.5 + sum((each.means @ each.weights for each in parts), np.zeros(len(scenarios.mean)))
    second = np.zeros(len(mean))
    for each in parts:
        second += each.variance * each.weights.sum() + (0.5 + each.means - mean[:, None]) ** 2 @ each.weights
    published, reverse, vague = _story_weights(parts)
    return Outlook(
        mean=mean,
        sd=np.sqrt(np.maximum(second, 0.0)),
        p_published=published,
        p_reversed=reverse,
        p_vague=vague,
    )


def _improvement(part: _Part, seen: IntArray, *, level_sd: float) -> FloatArray:
    """(M, J) expected improvement of each candidate's true accuracy on the best seen of each scenario."""
    if not len(seen):  # nothing to improve on: the average candidate stands for it, and the level cancels
        own = np.sqrt(np.maximum(part.variance - level_sd**2, 1e-12))
        return expected_improvement(part.means, own[:, None], best=0.0)
    best = part.means[seen].argmax(axis=0)  # (J,) among those seen
    level = part.means[seen[best], np.arange(part.means.shape[1])]
    variance = part.variance[:, None] + part.variance[seen[best]] - 2 * part.seen[best].T  # of the difference
    return expected_improvement(part.means - level, np.sqrt(np.maximum(variance, 1e-12)), best=0.0)


def look_values(scenarios: Scenarios, looks: Sequence[Look], *, policy: LookingPolicy = DEFAULT) -> FloatArray:
    """By how much a look at each candidate is expected to improve on the best seen: (M,), accuracy, 0 for those seen.

    Before the first look it is the improvement on an average candidate.

    Raises:
        ValueError: as `outlook`.
    """
    _check(scenarios, looks)
    seen = np.array([each.candidate for each in looks], dtype=np.int64)
    parts = _parts(scenarios, looks, policy)
    stories = _story_weights(parts)
    before = [sum(float(each.prior.sum()) for each in parts if each.story == story) for story in range(3)]
    value = np.zeros(len(scenarios.mean))
    for part in parts:
        kept = part.prior * (stories[part.story] / before[part.story])
        weights = (1 - policy.hedge) * part.weights + policy.hedge * kept
        if weights.sum() > _NEGLIGIBLE:
            value += _improvement(part, seen, level_sd=policy.level_sd) @ weights
    value[seen] = 0.0
    return value


def next_look(
    scenarios: Scenarios, looks: Sequence[Look], *, costs: FloatArray | None = None, policy: LookingPolicy = DEFAULT
) -> int | None:
    """The candidate whose look is worth most per cost; None when all were looked at.

    Args:
        scenarios: of M candidates.
        looks: at most one for each candidate; may be empty.
        costs: (M,) of a look, > 0, any unit (gigabytes, seconds); None: all alike.
        policy: of the prior.

    Raises:
        ValueError: as `outlook`, or costs of another shape or not positive and finite.
    """
    size = len(scenarios.mean)
    price = np.ones(size) if costs is None else costs
    if price.shape != (size,) or not np.all((price > 0) & np.isfinite(price)):
        raise ValueError(f"costs must be {size} positive numbers, but got {costs!r}")
    value = look_values(scenarios, looks, policy=policy) / price
    value[[each.candidate for each in looks]] = -math.inf
    place = int(value.argmax())
    return place if math.isfinite(value[place]) else None


def best_seen(scenarios: Scenarios, looks: Sequence[Look], *, policy: LookingPolicy = DEFAULT) -> int:
    """The candidate to choose now: the highest posterior mean among those looked at.

    Raises:
        ValueError: as `outlook`, or no look yet.
    """
    if not looks:
        raise ValueError("a choice needs at least one look, but got none")
    mean = outlook(scenarios, looks, policy=policy).mean
    return max((each.candidate for each in looks), key=lambda candidate: float(mean[candidate]))
