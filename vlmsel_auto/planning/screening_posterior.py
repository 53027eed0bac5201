"""What is believed of M candidates on a new task after some of them were loaded and screened. Pure arrays.

A screening loads one candidate and measures its accuracy on the user's labelled images, with a standard error. What
accuracies on other data sets say (`planning.screening_prior`) is one Gaussian process over candidates, with level and
spread of the new task integrated out:

    y = level + s * z + noise,    z ~ N(mean, cov)

The level's prior is that of the published data sets, widened; s is taken by its posterior on a grid. Three components
are weighed by their evidence after every screening (`reversed_order` of `planning.policy` is the same thought):

    published      z as above
    reversed       z ~ N(-mean, cov): the table has the order the wrong way round
    uninformative  z ~ N(0, v I): the table tells nothing of this task
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vlmsel_auto.planning.gaussian import Gaussians, given
from vlmsel_auto.planning.screening_prior import ScreeningPrior
from vlmsel_auto.records import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ScreeningPolicy:
    """How screenings are valued: our own choices (docs/results/screening.md says what measured them)."""

    cover_every: int = 2  # each such screening is the portfolio's; 0: none
    p_reversed: float = 0.015
    p_uninformative: float = 0.03
    spreads: tuple[float, ...] = (0.4, 0.63, 1.0, 1.6, 2.5)  # grid of s
    spread_log_sd: float = 0.7  # of s around 1
    level_width: float = 1.5  # of the new task's level, in standard deviations between published data sets
    cost_power: float = 0.5  # values are divided by this power of the costs; 1: plain gain per cost
    realised: float = 0.25  # share of a value that comes out, for stopping: the next might gain the same


DEFAULT: Final = ScreeningPolicy()


@dataclass(frozen=True, kw_only=True, slots=True)
class Screening:
    """What a loaded candidate reached on the user's labelled images."""

    candidate: int  # index into the prior
    accuracy: float  # in [0, 1]
    sd: float  # standard error of it, at least 0


@dataclass(frozen=True, kw_only=True, eq=False)
class ScreeningPosterior:
    """What is believed of M candidates after some screenings, in units of accuracy."""

    mean: FloatArray  # (M,)
    sd: FloatArray  # (M,); before the first screening most of it is the level's


def places_of(screenings: Sequence[Screening]) -> IntArray:
    """(n,) candidates that were screened."""
    return np.array([each.candidate for each in screenings], dtype=np.int64)


def level_variance(prior: ScreeningPrior, policy: ScreeningPolicy) -> float:
    """Prior variance of the new task's level."""
    return (policy.level_width * prior.level_sd) ** 2


def mixture(prior: ScreeningPrior, screenings: Sequence[Screening], policy: ScreeningPolicy) -> Gaussians:
    """Accuracies (M,) under each component and spread, given the screenings."""
    size = len(prior.mean)
    variance = float(np.mean(prior.mean**2 + np.diag(prior.cov)))
    means = np.stack([prior.mean, -prior.mean, np.zeros(size)])
    covs = np.stack([prior.cov, prior.cov, variance * np.eye(size)])
    spreads = np.array(policy.spreads)
    with np.errstate(divide="ignore"):  # a component may have no share
        shares = np.log([1 - policy.p_reversed - policy.p_uninformative, policy.p_reversed, policy.p_uninformative])
    logs = shares[:, None] - 0.5 * (np.log(spreads) / policy.spread_log_sd) ** 2
    every = Gaussians(
        mean=prior.level + (spreads[:, None] * means[:, None]).reshape(-1, size),
        cov=(spreads[:, None, None] ** 2 * covs[:, None]).reshape(-1, size, size) + level_variance(prior, policy),
        logs=logs.ravel(),
    )
    return given(
        every,
        seen=places_of(screenings),
        values=np.array([each.accuracy for each in screenings], dtype=np.float64),
        noise=np.array([each.sd**2 for each in screenings], dtype=np.float64),
    )


def screening_posterior(
    prior: ScreeningPrior, screenings: Sequence[Screening], *, policy: ScreeningPolicy = DEFAULT
) -> ScreeningPosterior:
    """Update what the published table says by what screenings found.

    Args:
        prior: of M candidates.
        screenings: at most one for each candidate; may be empty.
        policy: of the mixture.
    """
    found = mixture(prior, screenings, policy)
    return ScreeningPosterior(mean=found.mixture_mean, sd=np.sqrt(found.mixture_variance))
