"""A ranking of candidates as the prior of a user's OWN Optuna study. Public interfaces of Optuna only.

    prior = CandidatePrior.of(ranking, candidates=candidates)
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(prior), pruner=PriorPruner(prior))
    enqueue(study, prior, count=3)

The objective suggests the candidate as ``trial.suggest_int("candidate", 0, len(prior.names) - 1)`` (an index into
``prior.names``; recommended, it survives a change of the ranking) or as ``suggest_categorical("candidate", names)``.
Everything else is the wrapped sampler's. State lives in the study's trials alone, so any storage, several workers and
resumed studies work; only one process should call `enqueue`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from vlmsel_auto.records import Candidate, Ranking
from vlmsel_auto.trials.belief import Belief, Observation, belief_of, posterior, probability_best
from vlmsel_auto.trials.promise import promise

__all__ = ["CandidatePrior", "PriorPruner", "PriorSampler", "enqueue"]

_STALL = 3  # trials without a better one


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidatePrior:
    """What is believed of the candidates before the study."""

    belief: Belief
    parameter: str = "candidate"  # name of the study's parameter
    unit: float = 1.0  # how much of the objective is 1.0 of accuracy: 100 for per cent

    @classmethod
    def of(
        cls, ranking: Ranking, *, candidates: Sequence[Candidate], parameter: str = "candidate", unit: float = 1.0
    ) -> CandidatePrior:
        """From a ranking.

        Raises:
            ValueError: no candidate, one twice, or a unit that is not positive.
        """
        if not unit > 0:
            raise ValueError(f"unit must be positive, but got {unit!r}")
        return cls(belief=belief_of(ranking, candidates=candidates), parameter=parameter, unit=unit)

    @property
    def names(self) -> tuple[str, ...]:
        """Candidate ids, in the order of the index that the study suggests."""
        return self.belief.candidates

    @property
    def order(self) -> tuple[int, ...]:
        """Indices, the predicted best first."""
        return tuple(int(index) for index in np.argsort(-self.belief.mean, kind="stable"))

    def _index(self, value: object) -> int | None:
        if isinstance(value, str):
            return self.names.index(value) if value in self.names else None
        index = int(value) if isinstance(value, (int, float)) else -1
        return index if 0 <= index < len(self.names) else None

    def _allowed(self, distribution: BaseDistribution) -> list[int]:
        if isinstance(distribution, CategoricalDistribution):
            found = [self._index(choice) for choice in distribution.choices]
        elif isinstance(distribution, IntDistribution):
            found = [self._index(value) for value in range(distribution.low, distribution.high + 1, distribution.step)]
        else:
            raise ValueError(  # noqa: TRY004 - a distribution of the wrong kind is a wrong value here
                f"The parameter {self.parameter!r} must be an integer index or categorical names, "
                f"but got {distribution!r}"
            )
        allowed = [index for index in found if index is not None]
        if not allowed:
            raise ValueError(f"No choice of {self.parameter!r} is a candidate of the prior, but got {distribution!r}")
        return allowed


def _feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in trial.constraints.values()) if trial.constraints else True


class PriorSampler(BaseSampler):
    """Draws the candidate from the posterior; leaves every other parameter to the wrapped sampler.

    The candidate is the one with the largest expected improvement, or, with probability ``explore``, a draw by its
    probability of being the best. Finished trials update the belief: the candidate's kin with it. With several
    objectives the first one, usually accuracy, is what the ranking speaks of. Trials that broke a constraint count as
    tried, not as good.

    Args:
        prior: what is believed of the candidates.
        sampler: the wrapped sampler; None is TPE.
        explore: share of draws by probability instead of expected improvement.
        seed: of the draws.
    """

    def __init__(
        self,
        prior: CandidatePrior,
        sampler: BaseSampler | None = None,
        *,
        explore: float = 0.25,
        seed: int | None = None,
    ) -> None:
        if not 0 <= explore <= 1:
            raise ValueError(f"explore must lie in [0, 1], but got {explore!r}")
        self._prior = prior
        self._sampler = sampler if sampler is not None else TPESampler(seed=seed)
        self._explore = explore
        self._rng = np.random.default_rng(seed)

    def reseed_rng(self) -> None:
        """Take fresh randomness, as Optuna asks for in every thread or process."""
        self._rng = np.random.default_rng()
        self._sampler.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The wrapped sampler's, without the candidate."""
        space = self._sampler.infer_relative_search_space(study, trial)
        return {name: each for name, each in space.items() if name != self._prior.parameter}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        """The wrapped sampler's."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> object:
        """The candidate from the posterior, anything else from the wrapped sampler.

        Raises:
            ValueError: the candidate's parameter is of a kind that cannot name candidates.
        """
        if param_name != self._prior.parameter:
            return self._sampler.sample_independent(study, trial, param_name, param_distribution)
        index = self._draw(study, self._prior._allowed(param_distribution))  # noqa: SLF001 - of this module
        if isinstance(param_distribution, CategoricalDistribution):
            return self._prior.names[index] if self._prior.names[index] in param_distribution.choices else index
        return index

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """The wrapped sampler's."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """The wrapped sampler's."""
        self._sampler.after_trial(study, trial, state, values)

    def _draw(self, study: Study, allowed: list[int]) -> int:
        best, tries, since = _history(study, self._prior)
        seen = [Observation(candidate=index, method=0, value=value) for index, value in best.items()]
        belief = self._prior.belief
        if since >= _STALL and (since - _STALL) % 2 == 0:  # a prior that misleads costs every second trial at most
            belief = replace(belief, mean=np.zeros_like(belief.mean), cov=belief.cov / belief.cov.diagonal().mean())
        now = posterior(belief, seen)
        mean, sd, cov = now.mean[:, 0], now.sd[:, 0], now.cov[0]
        if self._rng.random() < self._explore:
            chances = probability_best(
                mean[allowed], cov[np.ix_(allowed, allowed)], seed=int(self._rng.integers(2**31))
            )
            return int(self._rng.choice(allowed, p=chances))
        top = max(best.values(), default=float(mean.max()))

        def worth(index: int) -> tuple[float, int, float]:
            count = tries.get(index, 0)  # also of trials that run elsewhere: do not all go there
            gain = promise(float(mean[index]), float(sd[index]), best=top, reached=best.get(index), tries=count)
            return gain, -count, float(mean[index])

        return max(allowed, key=worth)


def _history(study: Study, prior: CandidatePrior) -> tuple[dict[int, float], dict[int, int], int]:
    """Best value of each candidate (as accuracy, larger is better), how often each was tried, trials since the best."""
    sign = 1.0 if study.directions[0] == StudyDirection.MAXIMIZE else -1.0
    best: dict[int, float] = {}
    tries: dict[int, int] = {}
    since, top = 0, -np.inf
    for trial in study.get_trials(deepcopy=False):
        index = prior._index(trial.params.get(prior.parameter))  # noqa: SLF001 - of this module
        if index is None or trial.state == TrialState.WAITING:
            continue
        tries[index] = tries.get(index, 0) + 1
        if trial.state == TrialState.COMPLETE and trial.values and _feasible(trial) and np.isfinite(trial.values[0]):
            value = sign * trial.values[0] / prior.unit
            best[index] = max(best.get(index, -np.inf), value)
            since = 0 if value > top else since + 1
            top = max(top, value)
    return best, tries, since


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
        chances = probability_best(prior.belief.mean, prior.belief.cov)
        self._prior = prior
        self._pruner = pruner if pruner is not None else MedianPruner()
        self._handicap = handicap * prior.unit * (1 - chances / chances.max())

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end."""
        index = self._prior._index(trial.params.get(self._prior.parameter))  # noqa: SLF001 - of this module
        if index is None:
            return self._pruner.prune(study, trial)
        sign = 1.0 if study.directions[0] == StudyDirection.MAXIMIZE else -1.0
        shift = sign * float(self._handicap[index])
        shown = copy.copy(trial)
        shown.intermediate_values = {step: value - shift for step, value in trial.intermediate_values.items()}
        return self._pruner.prune(study, shown)


def enqueue(
    study: optuna.Study, prior: CandidatePrior, *, count: int = 3, params: Mapping[str, object] | None = None
) -> int:
    """Queue the ``count`` predicted best as the first trials; a study that has trials is left alone.

    Only the process that creates the study may call it: Optuna cannot tell two workers' queues apart.

    Args:
        study: the study.
        prior: what is believed of the candidates.
        count: how many.
        params: further parameters of these trials, such as default learning rate; the rest is sampled.

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
            {prior.parameter: index, **(params or {})}, user_attrs={"vlmsel:candidate": prior.names[index]}
        )
    return len(chosen)
