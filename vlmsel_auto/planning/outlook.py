"""What is believed of M candidates on a new task after some of them were loaded and screened. Pure arrays.

A screening loads one candidate and measures its accuracy on the user's labelled images, with a standard error. What
accuracies on other data sets say (`planning.scenarios`) is one Gaussian process over candidates, with level and spread
of the new task integrated out:

    y = level + s * z + noise,    z ~ N(mean, cov)

The level's prior is that of the published data sets, widened; s is taken by its posterior on a grid. Three stories of
the table are weighed by their evidence after every screening (`misled` of `planning.policy` is the same thought):

    published  z as above
    reversed   z ~ N(-mean, cov): the table has the order the wrong way round
    vague      z ~ N(0, v I): the table tells nothing of this task
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vlmsel_auto.planning.gaussian import Gaussians, given
from vlmsel_auto.planning.scenarios import Scenarios
from vlmsel_auto.records import FloatArray, IntArray

TINY: Final = 1e-12  # variance


@dataclass(frozen=True, kw_only=True, slots=True)
class ScreeningPolicy:
    """How screenings are valued: our own choices (docs/results/screening.md says what measured them)."""

    cover_every: int = 2  # each such screening is the portfolio's; 0: none
    p_reversed: float = 0.015
    p_vague: float = 0.03
    spreads: tuple[float, ...] = (0.4, 0.63, 1.0, 1.6, 2.5)  # grid of s
    spread_log_sd: float = 0.7  # of s around 1
    level_width: float = 1.5  # of the new task's level, in standard deviations between published data sets
    cost_power: float = 0.5  # values are divided by this power of the costs; 1: plain gain per cost
    realised: float = (
        0.25  # share of a value that comes out, for stopping: screenings err, and the next might gain the same
    )

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


DEFAULT: Final = ScreeningPolicy()


@dataclass(frozen=True, kw_only=True, slots=True)
class Screening:
    """What a loaded candidate reached on the user's labelled images."""

    candidate: int  # index into the scenarios
    accuracy: float  # in [0, 1]
    sd: float  # standard error of it, at least 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Outlook:
    """What is believed of M candidates after some screenings, in units of accuracy."""

    mean: FloatArray  # (M,)
    sd: FloatArray  # (M,); before the first screening most of it is the level's
    p_published: float  # probability of each story
    p_reversed: float
    p_vague: float


@dataclass(frozen=True, kw_only=True, eq=False)
class MixtureComponent:
    """One story under one spread, given n screenings: a Gaussian of the mixture."""

    story: int  # 0 published, 1 reversed, 2 vague
    weight: float  # the weights of all components sum to 1
    mean: FloatArray  # (M,) accuracy
    variance: FloatArray  # (M,)
    seen: FloatArray  # (n, M) covariance of those seen with all


def check_screenings(scenarios: Scenarios, screenings: Sequence[Screening]) -> None:
    """Refuse screenings that cannot be.

    Raises:
        ValueError: a candidate out of range or screened twice, an accuracy or standard error out of range.
    """
    places = [each.candidate for each in screenings]
    if len(set(places)) != len(places):
        raise ValueError(f"every candidate may be screened once, but got {places!r}")
    for each in screenings:
        if not 0 <= each.candidate < len(scenarios.mean):
            raise ValueError(f"a screening must name one of {len(scenarios.mean)} candidates, but got {each!r}")
        if not 0 <= each.accuracy <= 1 or not 0 <= each.sd < math.inf:
            raise ValueError(f"a screening needs an accuracy in [0, 1] and a standard error, but got {each!r}")


def places_of(screenings: Sequence[Screening]) -> IntArray:
    """(n,) candidates that were screened."""
    return np.array([each.candidate for each in screenings], dtype=np.int64)


def level_variance(scenarios: Scenarios, policy: ScreeningPolicy) -> float:
    """Prior variance of the new task's level."""
    return (policy.level_width * scenarios.level_sd) ** 2


def _stories(scenarios: Scenarios, policy: ScreeningPolicy) -> list[tuple[float, FloatArray, FloatArray]]:
    """Probability, mean (M,) and covariance (M, M) of z under each story."""
    size = len(scenarios.mean)
    variance = float(np.mean(scenarios.mean**2 + np.diag(scenarios.cov)))
    return [
        (1 - policy.p_reversed - policy.p_vague, scenarios.mean, scenarios.cov),
        (policy.p_reversed, -scenarios.mean, scenarios.cov),
        (policy.p_vague, np.zeros(size), variance * np.eye(size)),
    ]


def mixture(scenarios: Scenarios, screenings: Sequence[Screening], policy: ScreeningPolicy) -> list[MixtureComponent]:
    """The mixture given the screenings, which `check_screenings` has passed."""
    stories = [each for each in enumerate(_stories(scenarios, policy)) if each[1][0]]
    cases = [(story, spread, *of) for story, of in stories for spread in policy.spreads]
    level = level_variance(scenarios, policy)
    prior = Gaussians(
        mean=np.stack([scenarios.level + spread * mean for _, spread, _, mean, _ in cases]),
        cov=np.stack([spread**2 * cov + level for _, spread, _, _, cov in cases]),
        logs=np.array([
            math.log(share) - 0.5 * (math.log(spread) / policy.spread_log_sd) ** 2 for _, spread, share, _, _ in cases
        ]),
    )  # fmt: skip
    seen = places_of(screenings)
    found = given(
        prior,
        seen=seen,
        values=np.array([each.accuracy for each in screenings], dtype=np.float64),
        noise=np.array([each.sd**2 for each in screenings], dtype=np.float64),
    )
    return [
        MixtureComponent(story=case[0], weight=float(weight), mean=mean, variance=variance, seen=cov[seen])
        for case, weight, mean, variance, cov in zip(
            cases, found.weights, found.mean, found.variance, found.cov, strict=True
        )
    ]


def moments(components: Sequence[MixtureComponent]) -> Outlook:
    """The mixture's moments."""
    weights = np.array([each.weight for each in components])
    means = np.stack([each.mean for each in components])
    mean = weights @ means
    variance = weights @ (np.stack([each.variance for each in components]) + (means - mean) ** 2)
    published, turned, vague = (sum(each.weight for each in components if each.story == story) for story in range(3))
    return Outlook(mean=mean, sd=np.sqrt(variance), p_published=published, p_reversed=turned, p_vague=vague)


def outlook(scenarios: Scenarios, screenings: Sequence[Screening], *, policy: ScreeningPolicy = DEFAULT) -> Outlook:
    """Update what the published table says by what screenings found.

    Args:
        scenarios: of M candidates.
        screenings: at most one for each candidate; may be empty.
        policy: of the prior.

    Raises:
        ValueError: a candidate out of range or screened twice, an accuracy or standard error out of range.
    """
    check_screenings(scenarios, screenings)
    return moments(mixture(scenarios, screenings, policy))
