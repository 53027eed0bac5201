"""Which pretrained model to load and screen next, given `planning.screening_posterior`. Pure arrays.

Screenings are chosen in turn by two rules. One is expected improvement: the candidate whose true accuracy is expected
to exceed most that of the best seen (Mockus 1978; the best seen has the highest posterior mean). The other takes no
notice of what was seen: the candidate that adds most to those loaded on the published data sets, the greedy step of a
portfolio (Feurer et al. 2022, Auto-sklearn 2.0, section 3.1). A Gaussian forgets candidates that are seldom the best
but far ahead when they are; the portfolio does not. It has its turn only while `published` is likelier than not.

With costs, either value is divided by a power of the cost (Snoek et al. 2012 have power 1; Lee et al. 2020, "cost
cooling", lower it). The choice after k screenings is the highest posterior mean among those screened: what was never
loaded cannot be used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from vlmsel_auto.planning.gaussian import Gaussians
from vlmsel_auto.planning.screening_posterior import (
    DEFAULT,
    Screening,
    ScreeningPolicy,
    level_variance,
    mixture,
    places_of,
)
from vlmsel_auto.planning.screening_prior import ScreeningPrior
from vlmsel_auto.planning.trial_posterior import expected_improvement
from vlmsel_auto.records import FloatArray, IntArray

_TINY: Final = 1e-12  # variance


def _coverage(scores: FloatArray, seen: IntArray) -> FloatArray:
    """(M,) by how much each candidate improves on the best of those seen, mean over the published data sets."""
    gain: FloatArray = np.maximum(scores - scores[seen].max(axis=0), 0.0).mean(axis=1)
    return gain


def _improvement(found: Gaussians, seen: IntArray, *, level: float) -> FloatArray:
    """(M,) expected improvement of each candidate's true accuracy on that of the best seen.

    Where nothing was seen the average candidate stands for it, so that the level cancels.
    """
    if len(seen):
        best = seen[found.mixture_mean[seen].argmax()]
        reached = found.mean[:, best]
        variance = found.variance + found.variance[:, [best]] - 2 * found.cov[:, best]
    else:
        reached, variance = found.mean.mean(axis=1), found.variance - level
    sd = np.sqrt(np.maximum(variance, _TINY))
    value: FloatArray = found.weights @ expected_improvement(found.mean, sd, best=reached[:, None])
    return value


def _rules(
    prior: ScreeningPrior, screenings: Sequence[Screening], policy: ScreeningPolicy, charges: FloatArray | None
) -> Iterator[FloatArray]:
    """Values (M,) of the next screening by the rule whose turn it is, then by expected improvement.

    0 for those seen.
    """
    seen = places_of(screenings)
    off = np.zeros(len(prior.mean)) if charges is None else charges
    found = mixture(prior, screenings, policy)
    found = replace(found, mean=found.mean - off)
    if len(seen) and policy.cover_every and (len(seen) + 1) % policy.cover_every == 0:
        value = _coverage(prior.scores - off[:, None], seen)
        published = found.weights[: len(policy.spreads)].sum()
        if value.any() and published > 0.5:  # noqa: PLR2004 - likelier than not
            yield value
    value = _improvement(found, seen, level=level_variance(prior, policy))
    value[seen] = 0.0
    yield value


def screening_values(
    prior: ScreeningPrior,
    screenings: Sequence[Screening],
    *,
    charges: FloatArray | None = None,
    policy: ScreeningPolicy = DEFAULT,
) -> FloatArray:
    """By how much the next screening, at each candidate, improves on the best seen: (M,), accuracy, 0 for those seen.

    By the rule whose turn it is: in expectation on the new task, or on average on the published data sets. ``charges``
    as for `next_screening`.
    """
    return next(_rules(prior, screenings, policy, charges))


def next_screening(
    prior: ScreeningPrior,
    screenings: Sequence[Screening],
    *,
    costs: FloatArray | None = None,
    least: FloatArray | None = None,
    charges: FloatArray | None = None,
    policy: ScreeningPolicy = DEFAULT,
) -> int | None:
    """The candidate whose screening is worth most for its cost; None when none is left that is worth it.

    Args:
        prior: of M candidates.
        screenings: at most one for each candidate; may be empty.
        costs: (M,) of a screening, > 0, any unit (gigabytes, seconds); None: all alike.
        least: (M,) accuracy that a screening of each candidate must bring; infinite for one that cannot be screened;
            None: nothing. A candidate that neither rule finds worth it is passed over.
        charges: (M,) what the objective takes off each candidate's accuracy (`planning.objective`); None: nothing.
        policy: of the mixture and of values.
    """
    size = len(prior.mean)
    price = np.ones(size) if costs is None else costs
    bar = np.full(size, -math.inf) if least is None else least
    for value in _rules(prior, screenings, policy, charges):
        worth = np.where(policy.realised * value >= bar, value / price**policy.cost_power, -math.inf)
        worth[places_of(screenings)] = -math.inf
        place = int(worth.argmax())
        if math.isfinite(worth[place]):
            return place
    return None
