"""A ranking of candidates as the prior of a user's OWN Optuna study. Public interfaces of Optuna only.

    prior = CandidatePrior.of(ranking, candidates=candidates)
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(prior), pruner=PriorPruner(prior))

The objective suggests the candidate as ``trial.suggest_int("candidate", 0, len(prior.names) - 1)`` (an index into
``prior.names``), or as ``suggest_categorical("candidate", prior.names)``: samplers that see an order in integers, as
TPE does, learn faster from names, but a study's names cannot change later. What indices mean stands in the study's user
attribute ``vlmsel:candidates``; a prior that counts otherwise is refused. State lives in the study alone, so any
storage, several workers and resumed studies work.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from .candidate_prior import CandidatePrior, Tried, due
from .optuna_candidates import allowed_names, name_in, value_of
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
            ValueError: by `allowed_names`.
        """
        prior, name = self._prior, self._prior.parameter
        if not kinds.keys() & {name, *prior.settings}:
            return {}
        kind = kinds.get(name, _latest_kind(study, name))
        allowed = prior.names if kind is None else allowed_names(study, prior, kind)
        new = due(prior, self._tried(study, but=trial), allowed=allowed, minimise=minimises(study))
        if new is None or name_in(prior, trial) not in {None, new}:
            return {}
        mine: dict[str, object] = {} if kind is None else {name: value_of(prior, new, kind)}
        return mine | {key: each for key, each in prior.settings.items() if key not in kinds or holds(kinds[key], each)}

    def _tried(self, study: Study, *, but: FrozenTrial) -> list[Tried]:
        named = ((name_in(self._prior, each), each) for each in begun_trials(study, but=but))
        return [
            Tried(candidate=name, value=value_in(each), failed=each.state == TrialState.FAIL)
            for name, each in named
            if name is not None
        ]


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
        name = name_in(self._prior, trial)
        if name is None:
            return self._pruner.prune(study, trial)
        shift = (-1 if minimises(study) else 1) * float(self._handicaps[name])
        shown = copy.copy(trial)
        shown.intermediate_values = {step: value - shift for step, value in trial.intermediate_values.items()}
        return self._pruner.prune(study, shown)
