"""Which pretrained model to load and look at next: a posterior over M candidates on a new task. Pure arrays.

A look loads one candidate and measures its accuracy on the user's labelled images, with a standard error. What
accuracies on other data sets say (`planning.scenarios`) is one Gaussian process over candidates, with level and spread
of the new task integrated out:

    y = level + s * z + noise,    z ~ N(mean, cov)

The level's prior is that of the published data sets, widened; s is taken by its posterior on a grid. Three stories of
the table are weighed by their evidence after every look (`misled` of `planning.policy` is the same thought):

    published  z as above
    reversed   z ~ N(-mean, cov): the table has the order the wrong way round
    vague      z ~ N(0, v I): the table tells nothing of this task

Looks are chosen in turn by two rules. One is expected improvement: the candidate whose true accuracy is expected to
exceed most that of the best seen (Mockus 1978; the best seen has the highest posterior mean). The other takes no notice
of what was seen: the candidate that adds most to those loaded on the published data sets, the greedy step of a
portfolio (Feurer et al. 2022, Auto-sklearn 2.0, section 3.1). A Gaussian forgets candidates that are seldom the best
but far ahead when they are; the portfolio does not. It has its turn only while `published` is the likeliest story.

With costs, either value is divided by a power of the cost (Snoek et al. 2012 have power 1; Lee et al. 2020, "cost
cooling", lower it). The choice after k looks is the highest posterior mean among those looked at: what was never loaded
cannot be used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from vlmsel_auto.planning.posterior import expected_improvement
from vlmsel_auto.planning.scenarios import Scenarios
from vlmsel_auto.records import FloatArray, IntArray

_TINY: Final = 1e-12  # variance


@dataclass(frozen=True, kw_only=True, slots=True)
class LookingPolicy:
    """How looks are valued: our own choices (docs/looking.md says what measured them)."""

    cover_every: int = 2  # each such look is the portfolio's; 0: none
    p_reversed: float = 0.015
    p_vague: float = 0.03
    spreads: tuple[float, ...] = (0.4, 0.63, 1.0, 1.6, 2.5)  # grid of s
    spread_log_sd: float = 0.7  # of s around 1
    level_width: float = 1.5  # of the new task's level, in standard deviations between published data sets
    cost_power: float = 0.5  # values are divided by this power of the costs; 1: plain gain per cost
    realised: float = 0.25  # share of a value that comes out, for stopping: looks err, and the next might gain the same

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: a probability, a width, a spread or a count out of range.
        """
        if min(self.p_reversed, self.p_vague) < 0 or self.p_reversed + self.p_vague >= 1:
            raise ValueError(f"p_reversed and p_vague must be probabilities that leave one over, but got {self!r}")
        if not self.spreads or min(*self.spreads, self.spread_log_sd, self.level_width) <= 0:
            raise ValueError(f"spreads and widths must be positive, but got {self!r}")
        if min(self.cover_every, self.cost_power, self.realised) < 0:
            raise ValueError(f"cover_every, cost_power and realised must not be negative, but got {self!r}")


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
    sd: FloatArray  # (M,); before the first look most of it is the level's
    p_published: float  # probability of each story
    p_reversed: float
    p_vague: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """One story under one spread, given n looks: a Gaussian of the mixture."""

    story: int  # 0 published, 1 reversed, 2 vague
    weight: float  # the weights of all parts sum to 1
    mean: FloatArray  # (M,) accuracy
    variance: FloatArray  # (M,)
    seen: FloatArray  # (n, M) covariance of those seen with all


def _check(scenarios: Scenarios, looks: Sequence[Look]) -> None:
    places = [each.candidate for each in looks]
    if len(set(places)) != len(places):
        raise ValueError(f"every candidate may be looked at once, but got {places!r}")
    for each in looks:
        if not 0 <= each.candidate < len(scenarios.mean):
            raise ValueError(f"a look must name one of {len(scenarios.mean)} candidates, but got {each!r}")
        if not 0 <= each.accuracy <= 1 or not 0 <= each.sd < math.inf:
            raise ValueError(f"a look needs an accuracy in [0, 1] and a standard error, but got {each!r}")


def _places(looks: Sequence[Look]) -> IntArray:
    return np.array([each.candidate for each in looks], dtype=np.int64)


def _level_variance(scenarios: Scenarios, policy: LookingPolicy) -> float:
    return (policy.level_width * scenarios.level_sd) ** 2


def _stories(scenarios: Scenarios, policy: LookingPolicy) -> list[tuple[float, FloatArray, FloatArray]]:
    """Probability, mean (M,) and covariance (M, M) of z under each story."""
    size = len(scenarios.mean)
    variance = float(np.mean(scenarios.mean**2 + np.diag(scenarios.cov)))
    return [
        (1 - policy.p_reversed - policy.p_vague, scenarios.mean, scenarios.cov),
        (policy.p_reversed, -scenarios.mean, scenarios.cov),
        (policy.p_vague, np.zeros(size), variance * np.eye(size)),
    ]


def _condition(
    mean: FloatArray, cov: FloatArray, *, seen: IntArray, values: FloatArray, noise: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Mean (M,), variance (M,) and covariance (n, M) given n values with noise variances, and the log likelihood."""
    cross = cov[seen]
    factor = np.linalg.cholesky(cross[:, seen] + np.diag(noise + _TINY))
    residual = np.linalg.solve(factor, values - mean[seen])
    half = np.linalg.solve(factor, cross)
    variance = np.diag(cov) - np.sum(half**2, axis=0)
    log = -0.5 * float(residual @ residual) - float(np.log(np.diag(factor)).sum())
    return mean + half.T @ residual, np.maximum(variance, 0.0), cross - half[:, seen].T @ half, log


def _parts(scenarios: Scenarios, looks: Sequence[Look], policy: LookingPolicy) -> list[_Part]:
    """The mixture given the looks."""
    seen = _places(looks)
    values = np.array([each.accuracy for each in looks], dtype=np.float64)
    noise = np.array([each.sd for each in looks], dtype=np.float64) ** 2
    level = _level_variance(scenarios, policy)
    found, logs = [], []
    for story, (share, mean, cov) in enumerate(_stories(scenarios, policy)):
        for spread in policy.spreads if share else ():
            prior = scenarios.level + spread * mean
            given = _condition(prior, spread**2 * cov + level, seen=seen, values=values, noise=noise)
            found.append((story, *given[:3]))
            logs.append(given[3] + math.log(share) - 0.5 * (math.log(spread) / policy.spread_log_sd) ** 2)
    weights = np.exp(np.array(logs) - max(logs))
    weights /= weights.sum()
    return [
        _Part(story=story, weight=float(weight), mean=mean, variance=variance, seen=cross)
        for (story, mean, variance, cross), weight in zip(found, weights, strict=True)
    ]


def _outlook(parts: Sequence[_Part]) -> Outlook:
    """The mixture's moments."""
    weights = np.array([each.weight for each in parts])
    means = np.stack([each.mean for each in parts])
    mean = weights @ means
    variance = weights @ (np.stack([each.variance for each in parts]) + (means - mean) ** 2)
    published, turned, vague = (sum(each.weight for each in parts if each.story == story) for story in range(3))
    return Outlook(mean=mean, sd=np.sqrt(variance), p_published=published, p_reversed=turned, p_vague=vague)


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
    return _outlook(_parts(scenarios, looks, policy))


def _coverage(standings: FloatArray, seen: IntArray) -> FloatArray:
    """(M,) by how much each candidate improves on the best of those seen, mean over the published data sets."""
    gain: FloatArray = np.maximum(standings - standings[seen].max(axis=0), 0.0).mean(axis=1)
    return gain


def _improvement(parts: Sequence[_Part], seen: IntArray, *, level: float) -> FloatArray:
    """(M,) expected improvement of each candidate's true accuracy on that of the best seen.

    Where nothing was seen the average candidate stands for it, so that the level cancels.
    """
    if not len(seen):
        centre = [each.mean.mean() for each in parts]
        sds = [np.sqrt(np.maximum(each.variance - level, _TINY)) for each in parts]
    else:
        place = int(_outlook(parts).mean[seen].argmax())
        centre = [each.mean[seen[place]] for each in parts]
        sds = [
            np.sqrt(np.maximum(each.variance + each.variance[seen[place]] - 2 * each.seen[place], _TINY))
            for each in parts
        ]
    value = np.zeros(len(parts[0].mean))
    for part, reached, sd in zip(parts, centre, sds, strict=True):
        value += part.weight * expected_improvement(part.mean, sd, best=float(reached))
    return value


def _rules(
    scenarios: Scenarios, looks: Sequence[Look], policy: LookingPolicy, charges: FloatArray | None
) -> Iterator[FloatArray]:
    """Values (M,) of the next look by the rule whose turn it is, then by expected improvement; 0 for those seen."""
    seen = _places(looks)
    off = np.zeros(len(scenarios.mean)) if charges is None else charges
    parts = [replace(each, mean=each.mean - off) for each in _parts(scenarios, looks, policy)]
    if len(seen) and policy.cover_every and (len(seen) + 1) % policy.cover_every == 0:
        value = _coverage(scenarios.standings - off[:, None], seen)
        if value.any() and _outlook(parts).p_published > 0.5:  # noqa: PLR2004 - likelier than not
            yield value
    value = _improvement(parts, seen, level=_level_variance(scenarios, policy))
    value[seen] = 0.0
    yield value


def look_values(
    scenarios: Scenarios, looks: Sequence[Look], *, charges: FloatArray | None = None, policy: LookingPolicy = DEFAULT
) -> FloatArray:
    """By how much the next look, at each candidate, improves on the best seen: (M,), accuracy, 0 for those seen.

    By the rule whose turn it is: in expectation on the new task, or on average on the published data sets. ``charges``
    as for `next_look`.

    Raises:
        ValueError: as `outlook`.
    """
    _check(scenarios, looks)
    return next(_rules(scenarios, looks, policy, charges))


def next_look(
    scenarios: Scenarios,
    looks: Sequence[Look],
    *,
    costs: FloatArray | None = None,
    least: FloatArray | None = None,
    charges: FloatArray | None = None,
    policy: LookingPolicy = DEFAULT,
) -> int | None:
    """The candidate whose look is worth most for its cost; None when none is left that is worth it.

    Args:
        scenarios: of M candidates.
        looks: at most one for each candidate; may be empty.
        costs: (M,) of a look, > 0, any unit (gigabytes, seconds); None: all alike.
        least: (M,) accuracy that a look at each candidate must bring; infinite for one that cannot be looked at; None:
            nothing. A candidate that neither rule finds worth it is passed over.
        charges: (M,) what the objective takes off each candidate's accuracy (`planning.objective`); None: nothing.
        policy: of the prior.

    Raises:
        ValueError: as `outlook`, costs of another shape or not positive and finite, or ``least`` or ``charges`` of
            another shape.
    """
    _check(scenarios, looks)
    size = len(scenarios.mean)
    price = np.ones(size) if costs is None else costs
    if price.shape != (size,) or not np.all((price > 0) & np.isfinite(price)):
        raise ValueError(f"costs must be {size} positive numbers, but got {costs!r}")
    bar = np.full(size, -math.inf) if least is None else least
    if bar.shape != (size,):
        raise ValueError(f"least must be {size} numbers, but got {least!r}")
    if charges is not None and charges.shape != (size,):
        raise ValueError(f"charges must be {size} numbers, but got {charges!r}")
    for value in _rules(scenarios, looks, policy, charges):
        worth = np.where(policy.realised * value >= bar, value / price**policy.cost_power, -math.inf)
        worth[_places(looks)] = -math.inf
        place = int(worth.argmax())
        if math.isfinite(worth[place]):
            return place
    return None


def best_seen(scenarios: Scenarios, looks: Sequence[Look], *, policy: LookingPolicy = DEFAULT) -> int:
    """The candidate to choose now: the highest posterior mean among those looked at.

    Raises:
        ValueError: as `outlook`, or no look yet.
    """
    if not looks:
        raise ValueError("a choice needs at least one look, but got none")
    mean = outlook(scenarios, looks, policy=policy).mean
    return max((each.candidate for each in looks), key=lambda candidate: float(mean[candidate]))
