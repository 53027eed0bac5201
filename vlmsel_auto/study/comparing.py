"""Two records of one study, a work directory's and a database's: whether they are of one search, and who knows more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import WorkdirError

_WHAT: Final = {"table_sha256": "candidates", "task": "images, labels or split"}


def check_same_search(about: Mapping[str, Json], *, known: Mapping[str, Json], place: str) -> None:
    """Refuse a study that is about something else; what ``known`` does not say is no difference.

    Raises:
        WorkdirError: it is of other candidates, methods or images.
    """
    for key, value in about.items():
        found = known.get(key, value)
        if found != value:
            raise WorkdirError(
                f"{place} belongs to a search with other {_WHAT.get(key, key)}: choose another, "
                f"but got {key}={str(value)[:200]} for a study with {str(found)[:200]}"
            )


def knows_more(theirs: Sequence[FrozenTrial], ours: Sequence[FrozenTrial], *, workdir: Path) -> bool:
    """Whether the database has trials, or results, that the journal of ``workdir`` lacks.

    Raises:
        WorkdirError: each has some that the other lacks, or the same trial ended differently.
    """
    for their, our in zip(theirs, ours, strict=False):
        if their.state.is_finished() and our.state.is_finished() and _outcome(their) != _outcome(our):
            break
    else:
        lacking, more = _lacks(ours, theirs), _lacks(theirs, ours)
        if not (lacking and more):
            return lacking
    raise WorkdirError(
        "the work directory and the study in the database went different ways, for another search went on with it in "
        f"between: use another work directory, or no database, but got {workdir} with {len(ours)} trials and a "
        f"database with {len(theirs)}"
    )


def _outcome(trial: FrozenTrial) -> tuple[object, ...]:
    return (trial.state, trial.values, trial.params)


def _lacks(some: Sequence[FrozenTrial], others: Sequence[FrozenTrial]) -> bool:
    """Whether a trial of ``others`` is not in ``some``, or further there."""
    there = {each.number: _progress(each) for each in some}
    return any(_progress(each) > there.get(each.number, 0) for each in others)


def _progress(trial: FrozenTrial) -> int:
    """0: it only waits."""
    return 2 if trial.state.is_finished() else int(trial.state == OptunaState.RUNNING)
