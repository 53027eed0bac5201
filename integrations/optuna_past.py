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

from .ask_tell import Params, Value
from .optuna_sampler import ProposingSampler, holds, mode_of, tell_study
from .past_search import PastRow, PastSearch, PastTable

__all__ = ["PastRow", "PastSampler", "PastTable"]


class PastSampler(ProposingSampler):
    """Proposes the settings of a table of past trials; everything else is the wrapped sampler's.

    Settings that the study's space does not have (a model that is not offered, a number off its grid) are passed over.
    With several objectives the first one is what the table speaks of. Trials that broke a constraint count as tried,
    not as good.

    Args:
        past: what past trials say.
        sampler: as for `ProposingSampler`; also for when every setting was tried.
        seed: likewise.

    Raises:
        ValueError: the sampler is a `GridSampler`.
    """

    def __init__(self, past: PastTable, sampler: BaseSampler | None = None, *, seed: int | None = None) -> None:
        super().__init__(sampler, seed=seed)
        self._past = past

    def proposal(self, study: Study, trial: FrozenTrial, kinds: Mapping[str, BaseDistribution]) -> Params:
        """The best setting of the table that this space holds and that agrees with what the trial has already."""
        if not kinds.keys() & set(self._past.names):
            return {}

        def allows(params: Mapping[str, Value]) -> bool:
            return all(holds(kinds[name], value) for name, value in params.items() if name in kinds)

        search = PastSearch(self._past, mode=mode_of(study))
        tell_study(search, study, but=trial, params_of=lambda other: other.params)
        return search.propose(trial.params, allows=allows) or {}
