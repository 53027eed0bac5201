"""A ranking of candidates as the prior of a user's OWN Optuna study. Public interfaces of Optuna only.

    prior = CandidatePrior.of(ranking, candidates=candidates)
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(prior), pruner=PriorPruner(prior))
    enqueue(study, prior, count=3)

The objective suggests the candidate as ``trial.suggest_int("candidate", 0, len(prior.names) - 1)`` (an index into
``prior.names``), or as ``suggest_categorical("candidate", prior.names)`` with ``enqueue(..., by_name=True)``: samplers
that see an order in integers, as TPE does, learn faster from names, but a study's names cannot change later. State
lives in the study's trials alone, so any storage, several workers and resumed studies work; only one process should
call `enqueue`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from vlmsel_auto.planning.posterior import Belief, Observation, acquisition, belief_of, posterior
from vlmsel_auto.ranks import simulate_ranks
from vlmsel_auto.records import Candidate, Ranking

from ._wrapped import WrappingSampler, sign_of

__all__ = ["CandidatePrior", "PriorPruner", "PriorSampler", "enqueue"]

_STALL = 3  # trials without a better one


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidatePrior:
    """What is believed of the candidates before the study."""

    belief: Belief
    parameter: str = "candidate"  # name of the study's parameter
    unit: float = 1.0  # how much of the objective is 1.0 of accuracy: 100 for per cent
    settings: Mapping[str, object] = field(default_factory=dict)  # other parameters of a candidate's first trial

    @classmethod
    def of(
        cls,
        ranking: Ranking,
        *,
        candidates: Sequence[Candidate],
        parameter: str = "candidate",
        unit: float = 1.0,
        settings: Mapping[str, object] | None = None,
    ) -> CandidatePrior:
        """From a ranking.

        Args:
            ranking: scores and their uncertainty.
            candidates: all that the study may choose from.
            parameter: name of the study's parameter.
            unit: how much of the objective is 1.0 of accuracy: 100 for per cent.
            settings: other parameters of each candidate's first trial, such as a default learning rate.

        Raises:
            ValueError: no candidate, one twice, or a unit that is not positive.
        """
        if not unit > 0:
            raise ValueError(f"unit must be positive, but got {unit!r}")
        belief = belief_of(ranking, candidates=candidates)
        return cls(belief=belief, parameter=parameter, unit=unit, settings=dict(settings or {}))

    @property
    def names(self) -> tuple[str, ...]:
        """Candidate ids, in the order of the index that the study suggests."""
        return self.belief.candidates

    @property
    def order(self) -> tuple[int, ...]:
        """Indices, the predicted best first."""
        return tuple(int(index) for index in np.argsort(-self.belief.mean, kind="stable"))


def _index(prior: CandidatePrior, value: object) -> int | None:
    """The candidate that the study calls ``value``; None: none of the prior's."""
    if isinstance(value, str):
        return prior.names.index(value) if value in prior.names else None
    index = int(value) if isinstance(value, (int, float)) else -1
    return index if 0 <= index < len(prior.names) else None


def _value(prior: CandidatePrior, index: int, distribution: BaseDistribution) -> object:
    """What the study calls candidate ``index``."""
    named = isinstance(distribution, CategoricalDistribution) and prior.names[index] in distribution.choices
    return prior.names[index] if named else index


def _allowed(prior: CandidatePrior, distribution: BaseDistribution) -> list[int]:
    if isinstance(distribution, CategoricalDistribution):
        values: Iterable[object] = distribution.choices
    elif isinstance(distribution, IntDistribution):
        values = range(distribution.low, distribution.high + 1, distribution.step)
    else:
        raise ValueError(  # noqa: TRY004 - a distribution of the wrong kind is a wrong value here
            f"The parameter {prior.parameter!r} must be an integer index or categorical names, but got {distribution!r}"
        )
    allowed = [index for index in (_index(prior, value) for value in values) if index is not None]
    if not allowed:
        raise ValueError(f"No choice of {prior.parameter!r} is a candidate of the prior, but got {distribution!r}")
    return allowed


class PriorSampler(WrappingSampler):
    """Brings each candidate in when the posterior says so; everything else is the wrapped sampler's.

    A trial is the first one of a candidate as long as that has the largest expected improvement; else, and every second
    time once the prior's choices have stopped to be better ones, the wrapped sampler chooses the candidate too. The
    prior therefore chooses every candidate at most once (again only if that trial failed): the better it is the sooner
    the study is where it should be, and a wrong one costs few trials. Finished trials update the belief, and a
    candidate's kin with it. With several objectives the first one, usually accuracy, is what the ranking speaks of.
    Trials that broke a constraint count as tried, not as good.

    Args:
        prior: what is believed of the candidates, and the settings of their first trials.
        sampler: the wrapped sampler; None is TPE.
        seed: of the default sampler.
    """

    def __init__(self, prior: CandidatePrior, sampler: BaseSampler | None = None, *, seed: int | None = None) -> None:
        super().__init__(sampler, seed=seed)
        self._prior = prior

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The wrapped sampler's, with what the prior sets where an earlier trial tells of which kind it is."""
        space = dict(super().infer_relative_search_space(study, trial))
        for other in reversed(study.get_trials(deepcopy=False)):
            for name in {self._prior.parameter, *self._prior.settings} - set(space):
                if name in other.distributions:
                    space[name] = other.distributions[name]
            if set(self._prior.settings) | {self._prior.parameter} <= set(space):
                break
        return space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        """A candidate's first trial, or the wrapped sampler's choice of everything."""
        name, settings = self._prior.parameter, self._prior.settings
        index = self._new(study, search_space[name]) if name in search_space else None
        if index is not None:
            mine = {key: value for key, value in settings.items() if key in search_space}
            mine[name] = _value(self._prior, index, search_space[name])
            rest = {key: each for key, each in search_space.items() if key not in mine}
            return {**super().sample_relative(study, trial, rest), **mine}
        inferred = super().infer_relative_search_space(study, trial)
        added = ({name} | set(settings)) - set(inferred)
        theirs = {key: each for key, each in search_space.items() if key not in added}
        found = dict(super().sample_relative(study, trial, theirs))
        if name in search_space and name not in found:
            found[name] = super().sample_independent(study, trial, name, search_space[name])
        return found

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> object:
        """The candidate of a study's first trial from the prior, anything else from the wrapped sampler.

        Raises:
            ValueError: the candidate's parameter is of a kind that cannot name candidates.
        """
        if param_name != self._prior.parameter:
            return super().sample_independent(study, trial, param_name, param_distribution)
        index = self._most_promising(study, param_distribution)
        return _value(self._prior, index, param_distribution)

    def _new(self, study: Study, distribution: BaseDistribution) -> int | None:
        """The candidate that should have its first trial; None: the wrapped sampler may choose."""
        past = _history(study, self._prior)
        if past.since >= _STALL and (past.since - _STALL) % 2 == 0:
            return None
        index = self._most_promising(study, distribution)
        return None if index in past.seen else index

    def _most_promising(self, study: Study, distribution: BaseDistribution) -> int:
        """The candidate whose next trial is worth most; of equal ones the less tried, then the better believed."""
        past = _history(study, self._prior)
        now = posterior(
            self._prior.belief,
            [Observation(candidate=index, method=0, value=value) for index, value in past.best.items()],
        )
        mean, sd = now.mean[:, 0].tolist(), now.sd[:, 0].tolist()
        top = max(past.best.values(), default=max(mean))

        def worth(index: int) -> tuple[float, int, float]:
            count = past.tries.get(index, 0)  # also of trials that run elsewhere: do not all go there
            gain = acquisition(mean[index], sd[index], best=top, reached=past.best.get(index), tries=count)
            return gain, -count, mean[index]

        return max(_allowed(self._prior, distribution), key=worth)


@dataclass(frozen=True, kw_only=True)
class _History:
    best: Mapping[int, float]  # best value of each candidate, as accuracy, larger is better
    tries: Mapping[int, int]  # how often each was tried
    seen: frozenset[int]  # candidates with a trial that runs or did not fail
    since: int  # trials since the best


def _history(study: Study, prior: CandidatePrior) -> _History:
    sign = sign_of(study)
    best: dict[int, float] = {}
    tries: dict[int, int] = {}
    seen: set[int] = set()
    since, top = 0, -np.inf
    for trial in study.get_trials(deepcopy=False):
        index = _index(prior, trial.params.get(prior.parameter))
        if index is None or trial.state == TrialState.WAITING:
            continue
        tries[index] = tries.get(index, 0) + 1
        if trial.state != TrialState.FAIL:
            seen.add(index)
        feasible = all(value <= 0 for value in trial.constraints.values()) if trial.constraints else True
        if trial.state == TrialState.COMPLETE and trial.values and feasible and np.isfinite(trial.values[0]):
            value = sign * trial.values[0] / prior.unit
            best[index] = max(best.get(index, -np.inf), value)
            since = 0 if value > top else since + 1
            top = max(top, value)
    return _History(best=best, tries=tries, seen=frozenset(seen), since=since)


class PriorPruner(BasePruner):
    """Asks more of candidates with a weak prior: the wrapped pruner sees their values worsened by a handicap.

    Args:
        prior: what is believed of the candidates.
        pruner: the wrapped pruner; None is `optuna.pruners.MedianPruner`.
        handicap: of the least likely candidate, in units of accuracy; the likeliest has none.
    """

    def __init__(self, prior: CandidatePrior, pruner: BasePruner | None = None, *, handicap: float = 0.02) -> None:
        if not handicap >= 0:
            raise ValueError(f"handicap must not be negative, but got {handicap!r}")
        chances = simulate_ranks(prior.belief.mean, prior.belief.cov).p_best
        self._prior = prior
        self._pruner = pruner if pruner is not None else MedianPruner()
        self._handicap = handicap * prior.unit * (1 - chances / chances.max())

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end."""
        index = _index(self._prior, trial.params.get(self._prior.parameter))
        if index is None:
            return self._pruner.prune(study, trial)
        shift = sign_of(study) * float(self._handicap[index])
        shown = copy.copy(trial)
        shown.intermediate_values = {step: value - shift for step, value in trial.intermediate_values.items()}
        return self._pruner.prune(study, shown)


def enqueue(study: optuna.Study, prior: CandidatePrior, *, count: int = 3, by_name: bool = False) -> int:
    """Queue the ``count`` predicted best as the first trials; a study that has trials is left alone.

    Only the process that creates the study may call it: Optuna cannot tell two workers' queues apart. On SQLite, which
    locks no rows, two workers can be given the same queued trial (optuna/optuna#4621): let one process run the queue
    before the others begin, or use a journal file or PostgreSQL.

    Args:
        study: the study.
        prior: what is believed of the candidates, and the settings of their first trials; the rest is sampled.
        count: how many.
        by_name: the objective suggests names, not indices.

    Returns:
        How many were queued: 0 for a study that was begun before.
    """
    if count < 0:
        raise ValueError(f"count must not be negative, but got {count!r}")
    if study.get_trials(deepcopy=False):
        return 0
    chosen = prior.order[:count]
    for index in chosen:
        study.enqueue_trial(
            {**prior.settings, prior.parameter: prior.names[index] if by_name else index},
            user_attrs={"vlmsel:candidate": prior.names[index]},
        )
    return len(chosen)
