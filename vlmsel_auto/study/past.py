"""Trials of earlier searches, one JSON line each, beside the user's library: what default settings are learned from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.errors import InputError, LibraryError
from vlmsel_auto.library.places import user_library_path
from vlmsel_auto.planning.space import PastTrial
from vlmsel_auto.process import locked
from vlmsel_auto.recordjson import decode, encode, parse_json
from vlmsel_auto.records import Candidate, Task, TrialResult, TrialState
from vlmsel_auto.tuning.methods import method_of

_MOST = 20_000  # lines; the oldest go first
_WAIT = 30.0  # seconds for another process that writes


def past_path() -> Path:
    """The user's file of past trials."""
    return user_library_path().with_name("trials.jsonl")


def read_past(path: Path | None = None) -> tuple[PastTrial, ...]:
    """All that can be read; a missing file has none, and a line of another version is passed over."""
    try:
        lines = (path or past_path()).read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    found = []
    for line in lines:
        try:
            found.append(decode(PastTrial, parse_json(line)))
        except InputError:
            continue
    return tuple(found)


def past_of_search(*, task: Task, candidates: Sequence[Candidate], trials: Sequence[TrialResult]) -> list[PastTrial]:
    """The complete trials of a search whose training split was used whole."""
    by_id = {each.id: each for each in candidates}
    images = len(task.train)
    found = []
    for each in trials:
        candidate = by_id.get(each.spec.candidate)
        if candidate is None or each.state is not TrialState.COMPLETE or each.validation is None:
            continue
        method = method_of(each.spec.method)
        if not method.settings:  # there is nothing to learn
            continue
        found.append(
            PastTrial(
                task=task.digest,
                candidate=candidate.id,
                family=candidate.family,
                method=method.name,
                point=method.space(candidate, train_images=images).point(each.spec),
                value=each.validation,
            )
        )
    return found


def remember_past(trials: Sequence[PastTrial], path: Path | None = None) -> Path:
    """Add trials to the file; those of the same tasks that were there are replaced, as a resumed search has them again.

    Raises:
        LibraryError: it cannot be written.
    """
    place = path or past_path()
    tasks = {each.task for each in trials}
    try:
        with locked(place.with_name(f"{place.name}.lock"), wait=_WAIT, error=LibraryError):
            kept = [each for each in read_past(place) if each.task not in tasks]
            lines = [json.dumps(encode(each), sort_keys=True) for each in [*kept, *trials][-_MOST:]]
            write_atomically(place, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise LibraryError(f"Past trials could not be written: check the folder, but got {error!r}") from error
    return place
