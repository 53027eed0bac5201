"""The predicted best as the first trials of a user's OWN Optuna study, and what is said where these cannot run."""

from __future__ import annotations

import warnings

from optuna.study import Study
from optuna.trial import FrozenTrial

from .candidate_search import CandidatePrior
from .optuna_trials import keep_names

_QUEUED = "vlmsel:candidate"  # user attribute of a trial of `enqueue`: the candidate's name


def enqueue(study: Study, prior: CandidatePrior, *, count: int = 3, by_name: bool = False) -> int:
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
    if not by_name:
        keep_names(study, prior)
    chosen = prior.order[:count]
    for index in chosen:
        study.enqueue_trial(
            {**prior.settings, prior.parameter: prior.names[index] if by_name else index},
            user_attrs={_QUEUED: prior.names[index]},
        )
    return len(chosen)


def tell_of_queue(trial: FrozenTrial, prior: CandidatePrior) -> None:
    """Warn where a trial of `enqueue` failed before it had its candidate, as where an index stood for a name."""
    queued = trial.user_attrs.get(_QUEUED)
    if queued is not None and prior.parameter not in trial.params:
        warnings.warn(
            f"Trial {trial.number} was queued for {queued!r} and failed before it had that. If its error is about "
            f"{prior.parameter!r}: names that are suggested need enqueue(..., by_name=True), "
            "indices enqueue(..., by_name=False)",
            stacklevel=2,
        )
