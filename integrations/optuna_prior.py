"""A ranking of candidates as the prior of a user's OWN Optuna study. Public interfaces of Optuna only.

    prior = CandidatePrior.of(ranking, candidates=candidates)
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(prior), pruner=PriorPruner(prior))

The objective suggests the candidate as ``trial.suggest_categorical("candidate", prior.names)``. State lives in the
study alone, so any storage, several workers and resumed studies work.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from .candidate_prior import CandidatePrior, Tried, due
from .optuna_sampler import Params, ProposingSampler, begun_trials, holds, minimises, value_in

__all__ = ["CandidatePrior", "PriorPruner", "PriorSampler"]


class PriorSampler(ProposingSampler):
    """Brings each candidate in when the posterior says so; everything else is the wrapped sampler's.

    A trial is the first one of a candidate as long as that has the largest expected improvement; else, and every second
    time once the prior's choices have stopped to be better ones, the wrapped sampler chooses the candidate too. The
    prior therefore chooses every candidate at most once (again only if that trial failed): the better it is the sooner
    the study is where it should be, and a wrong one costs few trials. Finished trials update the belief, and a
    candidate's kin with it. With several objectives the first one, usually accuracy, is what the ranking speaks of.
    Trials that broke a constraint count as tried, not as good.

    Args:
        prior: what is believed of the candidates, and the settings of their first trials.
        sampler: as for `ProposingSampler`.
        seed: likewise.

    Raises:
        ValueError: the sampler is a `GridSampler`.
    """

    def __init__(self, prior: CandidatePrior, sampler: BaseSampler | None = None, *, seed: int | None = None) -> None:
        super().__init__(sampler, seed=seed)
        self._prior = prior

    def proposal(self, study: Study, trial: FrozenTrial, kinds: Mapping[str, BaseDistribution]) -> Params:
        """The candidate that should have its first trial now, with the prior's settings; nothing where none should.

        Raises:
            ValueError: the parameter that names candidates is of another kind, or names none of the prior's.
        """
        prior, name = self._prior, self._prior.parameter
        if not kinds.keys() & {name, *prior.settings}:
            return {}
        kind = kinds.get(name, _latest_kind(study, name))
        allowed = prior.names if kind is None else _allowed(prior, kind)
        new = due(prior, self._tried(study, but=trial), allowed=allowed, minimise=minimises(study))
        if new is None or _name_in(prior, trial) not in {None, new}:
            return {}
        mine: dict[str, object] = {} if kind is None else {name: new}
        return mine | {key: each for key, each in prior.settings.items() if key not in kinds or holds(kinds[key], each)}

    def _tried(self, study: Study, *, but: FrozenTrial) -> list[Tried]:
        named = ((_name_in(self._prior, each), each) for each in begun_trials(study, but=but))
        return [
            Tried(candidate=name, value=value_in(each), failed=each.state == TrialState.FAIL)
            for name, each in named
            if name is not None
        ]


def _name_in(prior: CandidatePrior, trial: FrozenTrial) -> str | None:
    """The candidate of a trial; None: none of the prior's."""
    name = trial.params.get(prior.parameter)
    return name if name in prior.names else None


def _allowed(prior: CandidatePrior, kind: BaseDistribution) -> list[str]:
    """Candidates that the study may choose."""
    if not isinstance(kind, CategoricalDistribution):
        raise ValueError(  # noqa: TRY004 - a distribution of the wrong kind is a wrong value here
            f"The parameter {prior.parameter!r} must be categorical, the names of candidates, but got {kind!r}"
        )
    allowed = [name for name in prior.names if name in kind.choices]
    if not allowed:
        raise ValueError(f"No choice of {prior.parameter!r} is a candidate of the prior, but got {kind!r}")
    return allowed


def _latest_kind(study: Study, name: str) -> BaseDistribution | None:
    """How the latest trial that has a parameter suggested it."""
    trials = reversed(study.get_trials(deepcopy=False))
    return next((each.distributions[name] for each in trials if name in each.distributions), None)


class PriorPruner(BasePruner):
    """Asks more of candidates with a weak prior: the wrapped pruner sees their values worsened by a handicap.

    Args:
        prior: what is believed of the candidates.
        pruner: the wrapped pruner; None is `optuna.pruners.MedianPruner`.
        handicap: of the least likely candidate, in units of accuracy; the likeliest has none.
    """

    def __init__(self, prior: CandidatePrior, pruner: BasePruner | None = None, *, handicap: float = 0.02) -> None:
        self._prior = prior
        self._pruner = pruner if pruner is not None else MedianPruner()
        self._handicaps = dict(zip(prior.names, prior.unit * prior.handicaps(handicap), strict=True))

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end."""
        name = _name_in(self._prior, trial)
        if name is None:
            return self._pruner.prune(study, trial)
        shift = (-1 if minimises(study) else 1) * float(self._handicaps[name])
        shown = copy.copy(trial)
        shown.intermediate_values = {step: value - shift for step, value in trial.intermediate_values.items()}
        return self._pruner.prune(study, shown)
