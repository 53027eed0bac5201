"""Trials of earlier searches, beside the user's library: what default settings are learned from.

One JSON line each, with a digest of the rest of it, so that damage is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from vlmsel_auto.cache import Json, sealed, unsealed, write_atomically
from vlmsel_auto.errors import InputError, LibraryError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.library.places import user_library_path
from vlmsel_auto.planning.space import PastTrial
from vlmsel_auto.process import locked
from vlmsel_auto.recordjson import decode, encode, parse_json
from vlmsel_auto.records import Candidate, Task, TrialResult, TrialState
from vlmsel_auto.tuning.methods import method_of

_MOST: Final = 20_000  # lines; the oldest go first
_WAIT: Final = 30.0  # seconds for another process that writes
_UNSEALED: Final = {each.name for each in fields(PastTrial)}  # a line as it was written before lines had digests


def past_path() -> Path:
    """The user's file of past trials."""
    return user_library_path().with_name("trials.jsonl")


def read_past(path: Path | None = None, *, sink: Sink = discard) -> tuple[PastTrial, ...]:
    """All that can be read; a missing file has none, and a line of another version is passed over.

    ``sink`` is told of a file that cannot be read, and how many lines are damaged: they are left out, the others are
    used.
    """
    place = path or past_path()
    try:
        return _read(place, sink=sink)
    except OSError as error:
        sink(Notice(text=f"past trials cannot be read and are not used: {error}", level="warning"))
        return ()


def _read(place: Path, *, sink: Sink) -> tuple[PastTrial, ...]:
    try:
        lines = place.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    found, damaged = [], 0
    for line in lines:
        try:
            record = _undamaged(parse_json(line))
        except (InputError, ValueError):
            damaged += 1
            continue
        try:
            found.append(decode(PastTrial, record))
        except InputError:  # of another version
            continue
    if damaged:
        told = f"{damaged} of {len(lines)} lines of past trials are damaged and left out, the others are used: {place}"
        sink(Notice(text=told, level="warning"))
    return tuple(found)


def _undamaged(value: Json) -> Json:
    """What a line says.

    Raises:
        ValueError: it is damaged.
    """
    return value if isinstance(value, dict) and set(value) == _UNSEALED else unsealed(value)


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

    Lines that cannot be read are dropped: `read_past` has told of damaged ones.

    Raises:
        LibraryError: it cannot be written.
    """
    place = path or past_path()
    tasks = {each.task for each in trials}
    try:
        with locked(place.with_name(f"{place.name}.lock"), wait=_WAIT, error=LibraryError):
            kept = [each for each in _read(place, sink=discard) if each.task not in tasks]
            lines = [json.dumps(sealed(_record(each)), sort_keys=True) for each in [*kept, *trials][-_MOST:]]
            write_atomically(place, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise LibraryError(f"Past trials could not be written: check the folder, but got {error!r}") from error
    return place


def _record(trial: PastTrial) -> dict[str, Json]:
    plain = encode(trial)
    assert isinstance(plain, dict)  # noqa: S101 - as every record
    return plain
