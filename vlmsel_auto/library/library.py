"""Source tasks: what is known of the candidates on them. Files, the shipped library, the user's own, verification.

The records are in `library_records`, the file format in `library_file`, joining in `library_merge`; this module gives
them one name and adds what belongs to a place on disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.file import load, save
from vlmsel_auto.library.merge import Conflict, assemble, merge, with_tuned
from vlmsel_auto.library.records import Build, Cell, CellFailure, Library, SourceCandidate, SourceTask
from vlmsel_auto.process import locked
from vlmsel_auto.records import FloatArray

__all__ = [
    "Build",
    "Cell",
    "CellFailure",
    "Conflict",
    "Library",
    "SourceCandidate",
    "SourceTask",
    "add",
    "assemble",
    "default_library",
    "default_library_path",
    "load",
    "merge",
    "remember",
    "save",
    "user_library",
    "user_library_path",
    "verify",
    "with_tuned",
]

_LOCK_SECONDS: Final = 60.0
_SUM_TOLERANCE: Final = 1e-3  # float32 rounding of sums over some hundred channels


def default_library_path() -> Path:
    """The library of the mini zoo that the package ships."""
    return Path(__file__).parents[1] / "data" / "mini-zoo-library.safetensors"


def user_library_path() -> Path:
    """The user's own library: ``$VLMSEL_LIBRARY``, or a file in the platform's user data folder."""
    chosen = os.environ.get("VLMSEL_LIBRARY")
    if chosen:
        return Path(chosen)
    from platformdirs import user_data_path

    return user_data_path("vlmsel_auto") / "library.safetensors"


@lru_cache(maxsize=1)
def default_library() -> Library:
    """The shipped library, read at the first call.

    Raises:
        LibraryError: the installation lacks the file or it is damaged.
    """
    return load(default_library_path())


def user_library() -> Library:
    """The shipped library merged with the user's own; where both have a cell the newer one counts.

    Raises:
        LibraryError: one of the two is damaged.
    """
    path = user_library_path()
    return merge(default_library(), load(path)) if path.exists() else default_library()


def add(library: Library, cells: Iterable[Cell], *, conflict: Conflict = "newest") -> Library:
    """The library with more cells; see `assemble` for cells that it already has.

    Raises:
        LibraryError: they contradict the library and ``conflict`` is "error".
    """
    return assemble(
        [*library.cells(), *cells],
        failures=library.failures,
        run_sources=dict(zip(library.run_names, library.run_sources, strict=True)),
        conflict=conflict,
    )


def remember(
    *, cells: Sequence[Cell], run_sources: Mapping[str, str] | None = None, path: Path | None = None
) -> tuple[Path, str]:
    """Add a finished search to the user's library as a source task, under a lock that other searches respect.

    A task that shares its name with a known task of other content gets the first eight digits of its digest appended.

    Args:
        cells: one for each candidate, all of one task.
        run_sources: where each tuning run's figures come from, by run name.
        path: the library to write; default `user_library_path`.

    Returns:
        The file written and the name of the source task in it.

    Raises:
        LibraryError: no cell, cells of several tasks, a damaged library (left as it is), a lock that stays taken,
            or a folder that cannot be written.
    """
    if len({cell.task for cell in cells}) != 1:
        raise LibraryError(f"a search is remembered as exactly one task, but got {len({cell.task for cell in cells})}")
    path = path or user_library_path()
    try:
        with locked(path.with_name(path.name + ".lock"), wait=_LOCK_SECONDS, error=LibraryError):
            known = load(path) if path.exists() else assemble([])
            task = _free_name(cells[0].task, known.tasks + _shipped_tasks())
            renamed = [_with_task(cell, task) for cell in cells]
            grown = assemble(
                [*known.cells(), *renamed],
                failures=known.failures,
                run_sources={**dict(zip(known.run_names, known.run_sources, strict=True)), **(run_sources or {})},
            )
            save(grown, path)
    except OSError as error:
        raise LibraryError(f"the library cannot be written ({error}), but got {path}") from error
    return path, task.name


def verify(
    library: Library, *, weights: Mapping[str, str] | None = None, tasks: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Everything wrong with a library, one sentence each; empty when all is well.

    `load` has already refused a file whose content does not match its digest; this looks at what the content means.

    Args:
        library: what to check.
        weights: SHA-256 of the weights at hand by candidate id; compared with those the cells were made with.
        tasks: digests of the task folders at hand by task name; likewise.

    Returns:
        The problems found.
    """
    found: list[str] = []
    for kind, names in (("candidate", library.candidate_ids), ("task", library.task_names)):
        found += [f"{kind} {name} is there more than once" for name in sorted({n for n in names if names.count(n) > 1})]
    for name in ("zero_shot", "probed", "tuned_runs", "class_accuracy"):
        value: FloatArray = getattr(library, name)
        if value.size and (np.nanmin(value, initial=0.0) < 0 or np.nanmax(value, initial=1.0) > 1):
            found.append(f"{name} must lie in [0, 1]; its range is [{np.nanmin(value)}, {np.nanmax(value)}]")
    for m, candidate in enumerate(library.candidates):
        found += _profile_problems(library, m)
        known = (weights or {}).get(candidate.id)
        if known is not None and candidate.sha256 not in ("", known):
            found.append(f"the weights of {candidate.id} are not those that its cells were made with")
    for task in library.tasks:
        if (tasks or {}).get(task.name, task.digest) != task.digest:
            found.append(f"the content of task {task.name} is not that which its cells were made with")
    found += [f"{one.candidate} on {one.task} failed: {one.reason}" for one in library.failures]
    return tuple(found)


def _profile_problems(library: Library, m: int) -> list[str]:
    """Non-negative, finite, and signs and absolute values that agree with the activity."""
    name, found = library.candidates[m].id, []
    activity = library.activity[m]
    there = np.isfinite(library.total[m]) & np.isfinite(activity).any(axis=1)
    if not np.isfinite(activity[there]).all():
        found.append(f"activity of {name} is not finite")
    if (activity[there] < 0).any():
        found.append(f"activity of {name} is negative")
    for b, (signed, absolute) in enumerate(zip(library.signature[m], library.absolute[m], strict=True)):
        block = library.candidates[m].blocks[b]
        if not (np.isfinite(signed[there]).all() and np.isfinite(absolute[there]).all()):
            found.append(f"conductance of {name}, block {block} is not finite")
            continue
        slack = _SUM_TOLERANCE * (1 + absolute[there])
        if (np.abs(signed[there]) > absolute[there] + slack).any():
            found.append(f"signed conductance of {name}, block {block} exceeds its absolute value")
        if not np.allclose(absolute[there].sum(axis=1), activity[there, b], rtol=_SUM_TOLERANCE, atol=_SUM_TOLERANCE):
            found.append(f"absolute conductance of {name}, block {block} does not sum to the activity")
    return found


def _shipped_tasks() -> tuple[SourceTask, ...]:
    return default_library().tasks if default_library_path().exists() else ()


def _free_name(task: SourceTask, known: Sequence[SourceTask]) -> SourceTask:
    if all(one.name != task.name or one.digest == task.digest for one in known):
        return task
    return replace(task, name=f"{task.name}-{task.digest[:8]}")


def _with_task(cell: Cell, task: SourceTask) -> Cell:
    return replace(cell, task=task)
