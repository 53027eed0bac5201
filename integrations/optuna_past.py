"""A table of past trials as the start of somebody's OWN Optuna study. Public interfaces of Optuna only.

    past = PastTable.of(rows, candidate="model")          # rows: task, parameters, value of each past trial
    study = optuna.create_study(direction="maximize", sampler=PastSampler(past))

The settings of the table (whole combinations of its parameters) are tried in the order of their expected improvement,
which is updated by the study's own trials (`_arms.py`); when all were tried, the wrapped sampler goes on. State lives
in the study's trials alone, so any storage, several workers and resumed studies work.
"""

from __future__ import annotations

from collections.abc import Mapping

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from ._wrapped import WrappingSampler
from .ask_tell import Value
from .optuna_trials import holds, mode_of, value_in
from .past_search import PastRow, PastSearch, PastTable

__all__ = ["PastRow", "PastSampler", "PastTable"]


class PastSampler(WrappingSampler):
    """Proposes the settings of a table of past trials; everything else is the wrapped sampler's.

    Settings that the study's space does not have (a model that is not offered, a number off its grid) are passed over.
    With several objectives the first one is what the table speaks of. Trials that broke a constraint count as tried,
    not as good.

    Args:
        past: what past trials say.
        sampler: the wrapped sampler, also for when every setting was tried; None is TPE. For every combination once
            take `optuna.samplers.BruteForceSampler`.
        seed: of the default sampler.

    Raises:
        ValueError: the sampler is a `GridSampler`.
    """

    def __init__(self, past: PastTable, sampler: BaseSampler | None = None, *, seed: int | None = None) -> None:
        super().__init__(sampler, seed=seed)
        self._past = past

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The wrapped sampler's, without the table's parameters while it has settings left that this space holds."""
        space = super().infer_relative_search_space(study, trial)

        def allows(params: Mapping[str, Value]) -> bool:
            return all(holds(space[name], value) for name, value in params.items() if name in space)

        taken = () if self._search(study, trial).propose(trial.params, allows=allows) is None else self._past.names
        return {name: each for name, each in space.items() if name not in taken}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> object:
        """The value of the best setting that agrees with what this trial has already; else the wrapped sampler's."""
        if param_name in self._past.names:

            def allows(params: Mapping[str, Value]) -> bool:
                return holds(param_distribution, params[param_name])

            params = self._search(study, trial).propose(trial.params, allows=allows)
            if params is not None:
                return params[param_name]
        return super().sample_independent(study, trial, param_name, param_distribution)

    def _search(self, study: Study, trial: FrozenTrial) -> PastSearch:
        """A search that was told every other trial of the study."""
        search = PastSearch(self._past, mode=mode_of(study))
        for other in study.get_trials(deepcopy=False):
            if other.number != trial.number:
                search.tell(other.params, value_in(other))
        return search
