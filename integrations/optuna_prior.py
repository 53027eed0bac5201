"""A ranking of candidates as the prior of a user's OWN Optuna study. Public interfaces of Optuna only.

    prior = CandidatePrior.of(ranking, candidates=candidates)
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(prior), pruner=PriorPruner(prior))
    enqueue(study, prior, count=3)

The objective suggests the candidate as ``trial.suggest_int("candidate", 0, len(prior.names) - 1)`` (an index into
``prior.names``), or as ``suggest_categorical("candidate", prior.names)`` with ``enqueue(..., by_name=True)``: samplers
that see an order in integers, as TPE does, learn faster from names, but a study's names cannot change later. What
indices mean stands in the study's user attribute ``vlmsel:candidates``; a prior that counts otherwise is refused. State
lives in the study alone, so any storage, several workers and resumed studies work; one process should call `enqueue`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from ._wrapped import WrappingSampler
from .ask_tell import sign_of
from .candidate_search import CandidatePrior
from .optuna_queue import enqueue, tell_of_queue
from .optuna_trials import allowed_names, kinds_of, mode_of, name_in, search_of, sets_first, value_of

__all__ = ["CandidatePrior", "PriorPruner", "PriorSampler", "enqueue"]


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
        sampler: the wrapped sampler; None is TPE. For every combination once take `optuna.samplers.BruteForceSampler`.
        seed: of the default sampler.

    Raises:
        ValueError: the sampler is a `GridSampler`.
    """

    def __init__(self, prior: CandidatePrior, sampler: BaseSampler | None = None, *, seed: int | None = None) -> None:
        super().__init__(sampler, seed=seed)
        self._prior = prior

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The wrapped sampler's, with what the prior sets where an earlier trial tells of which kind it is."""
        space = dict(super().infer_relative_search_space(study, trial))
        return {**space, **kinds_of(study, {self._prior.parameter, *self._prior.settings} - set(space))}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        """A candidate's first trial, or the wrapped sampler's choice of everything."""
        name, settings = self._prior.parameter, self._prior.settings
        kind = search_space.get(name)
        due = None if kind is None else search_of(study, self._prior).due(allowed_names(study, self._prior, kind))
        if due is not None:
            mine: dict[str, object] = {key: value for key, value in settings.items() if key in search_space}
            mine[name] = value_of(self._prior, due, search_space[name])
            rest = {key: each for key, each in search_space.items() if key not in mine}
            return {**super().sample_relative(study, trial, rest), **mine}
        inferred = super().infer_relative_search_space(study, trial)
        added = ({name} | set(settings)) - set(inferred)
        theirs = {key: each for key, each in search_space.items() if key not in added}
        return dict(super().sample_relative(study, trial, theirs))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> object:
        """From the prior what no earlier trial had: the candidate, and settings of a candidate's first trial.

        Anything else is the wrapped sampler's, the candidate too where none is due. It is asked for that only now: some
        samplers, such as `BruteForceSampler`, need to know what the trial has already.

        Raises:
            ValueError: by `allowed_names`.
        """
        if param_name != self._prior.parameter:
            if sets_first(study, self._prior, trial, name=param_name, kind=param_distribution):
                return self._prior.settings[param_name]
            return super().sample_independent(study, trial, param_name, param_distribution)
        allowed, search = allowed_names(study, self._prior, param_distribution), search_of(study, self._prior)
        due = search.due(allowed)
        if due is None and kinds_of(study, {param_name}):
            return super().sample_independent(study, trial, param_name, param_distribution)
        return value_of(self._prior, due or search.most_promising(allowed), param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """The wrapped sampler's; and a word where a trial of `enqueue` failed before it had its candidate."""
        if state == TrialState.FAIL:
            tell_of_queue(trial, self._prior)
        super().after_trial(study, trial, state, values)


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
        shift = sign_of(mode_of(study)) * float(self._handicaps[name])
        shown = copy.copy(trial)
        shown.intermediate_values = {step: value - shift for step, value in trial.intermediate_values.items()}
        return self._pruner.prune(study, shown)
