"""The shipped library and the user's own, which grows by a source task with every finished search."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from vlmsel_auto.cache import user_path
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.assemble import assemble, merge
from vlmsel_auto.library.file import load, save
from vlmsel_auto.library.records import Cell, Library, SourceTask, second_name
from vlmsel_auto.process import locked

_LOCK_SECONDS: Final = 60.0


def default_library_path() -> Path:
    """The library of the mini zoo that the package ships."""
    return Path(__file__).parents[1] / "data" / "mini-zoo-library.safetensors"


def user_library_path() -> Path:
    """The user's own library: ``$VLMSEL_LIBRARY``, or a file in the platform's user data folder.

    Raises:
        InputError: the user has no home.
    """
    from platformdirs import user_data_path

    return user_path("VLMSEL_LIBRARY", lambda: user_data_path("vlmsel_auto") / "library.safetensors")


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
    there = os.path.exists(path)  # noqa: PTH110 - Path's own raises where a service may not enter the home
    return merge(default_library(), load(path)) if there else default_library()


def open_library(library: Library | str | Path | None) -> Library:
    """A library as given, from a file, or by default the shipped one merged with the user's own.

    Raises:
        LibraryError: a file that cannot be read.
    """
    if library is None:
        return user_library()
    return library if isinstance(library, Library) else load(Path(library))


def remember(
    cells: Sequence[Cell], *, run_sources: Mapping[str, str] | None = None, path: Path | None = None
) -> tuple[Path, str]:
    """Add cells, as those of a finished search, to the user's library, under a lock that other searches respect.

    A task that shares its name with a known task of other content gets the first eight digits of its digest appended.

    Args:
        cells: at least one, of any tasks.
        run_sources: where each tuning run's figures come from, by run name.
        path: None for `user_library_path`.

    Returns:
        The file written and the name of the first cell's task in it.

    Raises:
        LibraryError: a damaged library (left as it is), a lock that stays taken, or a folder that cannot be written.
    """
    path = path or user_library_path()
    try:
        with locked(path.with_name(path.name + ".lock"), wait=_LOCK_SECONDS, error=LibraryError):
            known = load(path) if path.exists() else assemble([])
            taken = known.tasks + default_library().tasks
            named = [replace(cell, task=_free_name(cell.task, taken)) for cell in cells]
            save(merge(known, assemble(named, run_sources=run_sources)), path)
    except OSError as error:
        raise LibraryError(f"the library cannot be written ({error}), but got {path}") from error
    return path, named[0].task.name


def _free_name(task: SourceTask, known: Sequence[SourceTask]) -> SourceTask:
    if all(one.name != task.name or one.digest == task.digest for one in known):
        return task
    return replace(task, name=second_name(task.name, digest=task.digest))
