"""What is believed of candidates before a study's first trial, and which should have its first trial next."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from vlmsel_auto.planning.trial_posterior import Observation, TrialPrior, acquisition, trial_posterior, trial_prior
from vlmsel_auto.ranks import simulate_ranks
from vlmsel_auto.records import Candidate, FloatArray, Ranking

Value: TypeAlias = str | float

_STALL = 3  # trials without a better one
_ROUNDED = 1e-6  # of a unit


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidatePrior:
    """What is believed of the candidates before the first trial."""

    belief: TrialPrior
    parameter: str = "candidate"  # name of the parameter that says which candidate it is
    unit: float = 1.0  # how much of the objective is 1.0 of accuracy: 100 for per cent
    settings: Mapping[str, Value] = field(default_factory=dict)  # other parameters of a candidate's first trial

    def __post_init__(self) -> None:
        """Check the unit.

        Raises:
            ValueError: it is not positive.
        """
        if not self.unit > 0:
            raise ValueError(f"unit must be positive, but got {self.unit!r}")

    @classmethod
    def of(
        cls,
        ranking: Ranking,
        *,
        candidates: Sequence[Candidate],
        parameter: str = "candidate",
        unit: float = 1.0,
        settings: Mapping[str, Value] | None = None,
    ) -> CandidatePrior:
        """From a ranking.

        Args:
            ranking: scores and their uncertainty.
            candidates: all that may be chosen from; those that the ranking lacks are believed to be rather worse.
            parameter: name of the parameter that says which candidate it is.
            unit: how much of the objective is 1.0 of accuracy: 100 for per cent.
            settings: other parameters of each candidate's first trial, such as a default learning rate.

        Raises:
            ValueError: no candidate, one twice, none that the ranking has, or a unit that is not positive.
        """
        belief = trial_prior(ranking, candidates=candidates)
        if not set(belief.candidates) & set(ranking.order):
            raise ValueError(f"the ranking must have some of {belief.candidates!r}, but got one of {ranking.order!r}")
        return cls(belief=belief, parameter=parameter, unit=unit, settings=dict(settings or {}))

    @property
    def names(self) -> tuple[str, ...]:
        """Candidate ids."""
        return self.belief.candidates

    def handicaps(self, most: float) -> FloatArray:
        """(M,) accuracy that each must show beyond the others: 0 for the likeliest best, ``most`` for the least likely.

        Raises:
            ValueError: ``most`` is negative.
        """
        if not most >= 0:
            raise ValueError(f"handicap must not be negative, but got {most!r}")
        chances = simulate_ranks(self.belief.mean, self.belief.cov).p_best
        handicaps: FloatArray = most * (1 - chances / chances.max())
        return handicaps


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """A trial of a candidate that was begun, whoever chose it."""

    candidate: str
    value: float | None = None  # of the objective; None: it runs, was pruned, broke, or broke a constraint
    failed: bool = False  # it broke: its candidate may have another first trial


def due(prior: CandidatePrior, trials: Sequence[Tried], *, allowed: Collection[str], minimise: bool) -> str | None:
    """The candidate that should have its first trial now; None: a sampler that learns settings may choose.

    A candidate's first trial comes as soon as that promises most, and once nothing better was found for some trials
    only every second time: a wrong prior costs few trials. Of equal candidates the less tried comes first, then the
    better believed.

    Args:
        prior: what is believed of the candidates.
        trials: all trials of them that were begun, in order. A value beyond the prior's ``unit`` is warned of.
        allowed: candidates to choose from, at least one.
        minimise: whether smaller values are better.
    """
    _check_unit(prior, trials)
    places = {name: place for place, name in enumerate(prior.names)}
    tries = Counter(places[each.candidate] for each in trials)
    best: dict[int, float] = {}  # of each candidate's trials, in units of accuracy, larger is better
    since = 0  # trials since the best
    for each in trials:
        if each.value is not None and math.isfinite(each.value):
            place, reached = places[each.candidate], (-1 if minimise else 1) * each.value / prior.unit
            since = 0 if reached > max(best.values(), default=-math.inf) else since + 1
            best[place] = max(best.get(place, -math.inf), reached)
    if since >= _STALL and (since - _STALL) % 2 == 0:
        return None
    if minimise and max(best.values(), default=0.0) <= 0:
        # what is made small is an error, and 0 all right; else an accuracy turned round, which is below 0
        best = {place: value + 1 for place, value in best.items()}
    gains, mean = _gains(prior, best, tries)
    name = max(allowed, key=lambda name: (gains[places[name]], -tries[places[name]], mean[places[name]]))
    return None if any(each.candidate == name and not each.failed for each in trials) else name


def _gains(
    prior: CandidatePrior, best: Mapping[int, float], tries: Mapping[int, int]
) -> tuple[list[float], list[float]]:
    """Expected improvement by one more trial of each candidate, and what is believed of it."""
    now = trial_posterior(prior.belief, [Observation(candidate=place, method=0, value=best[place]) for place in best])
    mean, sd = now.mean[:, 0].tolist(), now.sd[:, 0].tolist()
    top = max(best.values(), default=max(mean))
    gains = [
        acquisition(mean[place], sd[place], best=top, reached=best.get(place), tries=tries.get(place, 0))
        for place in range(len(mean))
    ]
    return gains, mean


def _check_unit(prior: CandidatePrior, trials: Sequence[Tried]) -> None:
    """Warn of the first value that is beyond the unit."""
    for each in trials:
        if each.value is not None and prior.unit * (1 + _ROUNDED) < abs(each.value) < math.inf:
            warnings.warn(
                f"The objective is {each.value!r} in a trial of {each.candidate!r}, but an accuracy or error of 1.0 is "
                f"{prior.unit!r} of it, so the prior cannot tell candidates apart: make the prior with unit=..., how "
                "much of the objective is 1.0 of accuracy, 100 for per cent",
                stacklevel=2,
            )
            return
