"""Which candidate to try next, by a ranking and the trials so far: ask and tell, without anyone's study.

Use:

search = CandidateSearch(CandidatePrior.of(ranking, candidates=candidates))
params = search.ask()  # {"candidate": "ViT-B-32/laion2b_s34b_b79k"}
search.tell(params, accuracy)
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.planning.trial_posterior import Observation, TrialPrior, acquisition, trial_posterior, trial_prior
from vlmsel_auto.ranks import simulate_ranks
from vlmsel_auto.records import Candidate, FloatArray, Ranking

from .ask_tell import Mode, Params, Rungs, Value, sign_of

_STALL = 3  # trials without a better one
_PATIENCE = 5  # such trials after which the leaders have nothing new
_HANDICAP = 0.02  # of accuracy, that the least likely candidate must show beyond the others to go on
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

    @classmethod
    def of_scores(
        cls,
        scores: Mapping[str, float],
        *,
        sd: float,
        parameter: str = "candidate",
        unit: float = 1.0,
        settings: Mapping[str, Value] | None = None,
    ) -> CandidatePrior:
        """From any scores of at least two candidates, such as their accuracies on another task.

        Args:
            scores: by candidate, larger is better; only differences count, and only against their own spread.
            sd: how unsure they are, in standard deviations of the scores: 0.5 is a good prior, 2 next to none.
            parameter: as for `of`.
            unit: as for `of`.
            settings: as for `of`.

        Raises:
            ValueError: fewer than two scores, one that is not finite, or a unit or sd that is not positive.
        """
        values = np.array(list(scores.values()), dtype=np.float64)
        if len(values) < 2 or not np.isfinite(values).all():  # noqa: PLR2004 - one score has no spread
            raise ValueError(f"scores must be finite, of two candidates or more, but got {dict(scores)!r}")
        if not sd > 0:
            raise ValueError(f"sd must be positive, but got {sd!r}")
        mean = (values - values.mean()) / (values.std() or 1.0)
        belief = TrialPrior(candidates=tuple(scores), mean=mean, cov=sd**2 * np.eye(len(values)))
        return cls(belief=belief, parameter=parameter, unit=unit, settings=dict(settings or {}))

    @property
    def names(self) -> tuple[str, ...]:
        """Candidate ids, in the order of the index by which studies may suggest them."""
        return self.belief.candidates

    @property
    def order(self) -> tuple[int, ...]:
        """Indices, the predicted best first."""
        return tuple(int(index) for index in np.argsort(-self.belief.mean, kind="stable"))

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


class CandidateSearch:
    """Tries the candidate whose next trial is worth most; what trials reach changes the belief in it and in its kin.

    Args:
        prior: what is believed of the candidates, and the settings of their first trials.
        mode: whether larger or smaller values are better.
        handicap: what the least likely candidate must show beyond the others so as not to be pruned, in accuracy.

    Raises:
        ValueError: another mode, or a negative handicap.
    """

    def __init__(self, prior: CandidatePrior, *, mode: Mode = "max", handicap: float = _HANDICAP) -> None:
        self.prior = prior
        self.mode: Mode = mode
        self._sign = sign_of(mode)
        self._handicaps = prior.handicaps(handicap)
        self._places = {name: place for place, name in enumerate(prior.names)}
        self._tries: Counter[int] = Counter()  # begun, those that failed or still run included
        self._running: Counter[int] = Counter()
        self._good: Counter[int] = Counter()  # that run or did not fail
        self._best: dict[int, float] = {}  # of each candidate's best trial, in units of accuracy, larger is better
        self._since = 0  # trials since the best
        self._warned = False
        self._rungs = Rungs()

    def ask(self) -> dict[str, Value]:
        """The candidate whose next trial is worth most, with the prior's settings where it is its first."""
        name = self.most_promising(self.prior.names)
        params: dict[str, Value] = {**(self.prior.settings if self.is_new(name) else {}), self.prior.parameter: name}
        self.begin(params)
        return params

    def begin(self, params: Params) -> None:
        """A trial runs that was not asked for here: others need not go there too."""
        place = self._place(params)
        self._tries[place] += 1
        self._good[place] += 1
        self._running[place] += 1

    def tell(self, params: Params, value: float | None) -> None:
        """A trial ended with this value of the objective, by whomever it was chosen.

        Args:
            params: its parameters; only the candidate's matters.
            value: in the objective's own unit; None or not finite: it was tried, but its value does not count (it was
                pruned, or broke a constraint). One beyond the prior's ``unit`` is warned of: the first, once.

        Raises:
            ValueError: no candidate of the prior.
        """
        place = self._end(params)
        if value is None or not math.isfinite(value):
            return
        if abs(value) > self.prior.unit * (1 + _ROUNDED) and not self._warned:
            self._warned = True
            warnings.warn(
                f"The objective is {value!r} in a trial of {self.prior.names[place]!r}, but an accuracy or error of "
                f"1.0 is {self.prior.unit!r} of it, so the prior cannot tell candidates apart: make the prior with "
                "unit=..., how much of the objective is 1.0 of accuracy, 100 for per cent",
                stacklevel=2,
            )
        reached = self._score(value)
        self._since = 0 if reached > max(self._best.values(), default=-math.inf) else self._since + 1
        self._best[place] = max(self._best.get(place, -math.inf), reached)

    def fail(self, params: Params) -> None:
        """A trial broke: it counts as tried, and its candidate may have another first trial.

        Raises:
            ValueError: no candidate of the prior.
        """
        self._good[self._end(params)] -= 1

    def most_promising(self, allowed: Collection[str]) -> str:
        """The candidate whose next trial is worth most; of equal ones the less tried, then the better believed.

        Raises:
            ValueError: none of ``allowed`` is a candidate of the prior.
        """
        places = [place for name, place in self._places.items() if name in allowed]
        if not places:
            raise ValueError(f"a candidate of the prior must be allowed, but got {list(allowed)!r}")
        gains, mean = self._gains()
        return self.prior.names[max(places, key=lambda place: (gains[place], -self._tries[place], mean[place]))]

    def due(self, allowed: Collection[str]) -> str | None:
        """The candidate that should have its first trial now; None: a sampler that learns settings may choose.

        A candidate's first trial comes as soon as that promises most, and once nothing better was found for some
        trials only every second time: a wrong prior costs few trials.
        """
        if self._since >= _STALL and (self._since - _STALL) % 2 == 0:
            return None
        name = self.most_promising(allowed)
        return name if self.is_new(name) else None

    def is_new(self, name: str) -> bool:
        """Whether no trial of this candidate runs or ended without breaking: the next one is its first."""
        return not self._good[self._places[name]]

    def should_prune(self, params: Params, *, step: int, value: float) -> bool:
        """Whether the trial should end, by successive halving: weak candidates must show more, first trials less."""
        place = self._place(params)
        slack = POLICY.slack if self._tries[place] <= 1 else 0.0
        handicap = float(self._handicaps[place]) - slack
        return not self._rungs.goes_on(self._score(value), step=step, handicap=handicap)

    def should_stop(self) -> bool:
        """Whether the leaders have nothing new and no candidate promises more than `Policy.least_gain`."""
        return self._since >= _PATIENCE and max(self._gains()[0]) < POLICY.least_gain

    def _score(self, value: float) -> float:
        return self._sign * value / self.prior.unit

    def _place(self, params: Params) -> int:
        name = params.get(self.prior.parameter)
        if name not in self._places:
            raise ValueError(f"{self.prior.parameter!r} must be a candidate of the prior, but got {name!r}")
        return self._places[str(name)]

    def _end(self, params: Params) -> int:
        place = self._place(params)
        if not self._running[place]:
            self.begin(params)
        self._running[place] -= 1
        return place

    def _gains(self) -> tuple[list[float], list[float]]:
        """Expected improvement by one more trial of each candidate, and what is believed of it."""
        # what is made small is an error, and 0 all right; or an accuracy turned round, which is below 0
        errors = self.mode == "min" and max(self._best.values(), default=0.0) <= 0
        best = {place: value + 1 if errors else value for place, value in self._best.items()}
        seen = [Observation(candidate=place, method=0, value=value) for place, value in best.items()]
        now = trial_posterior(self.prior.belief, seen)
        mean, sd = now.mean[:, 0].tolist(), now.sd[:, 0].tolist()
        top = max(best.values(), default=max(mean))
        gains = [
            acquisition(mean[place], sd[place], best=top, reached=best.get(place), tries=self._tries[place])
            for place in range(len(mean))
        ]
        return gains, mean
