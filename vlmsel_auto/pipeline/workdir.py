"""The work directory of a search: what it was started with, the ranking it follows, and the lock of its one owner.

search.json    settings and the digest of the task; the same search resumes, another is refused
candidates.json  who the search is about, who was left out and how many images of a heap were drawn, so that these stay
                 when memory, disk or speed change
ranking.json   predicted before the first trial, so that a resumed search follows the same plan
task/           images and labels that were given in memory
pixels/ features/ trials/ study.journal  images, features, weights and study
model/ report/                           exported model and report
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final, TypeVar

from vlmsel_auto.cache import Json, sealed, unsealed, write_atomically
from vlmsel_auto.errors import InputError, WorkdirError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.process import locked, nearest_there, writing
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.records import Ranking
from vlmsel_auto.tasks.datasets import TaskData, task_folder
from vlmsel_auto.tasks.file_names import SEARCH_LOCK, SEARCH_SETTINGS
from vlmsel_auto.tasks.group_names import Groups

R = TypeVar("R")

TASK: Final = "task"
TO_LABEL: Final = "to_label.csv"  # images that `label.label` would have labelled next
_CANDIDATES: Final = "candidates.json"
_RANKING: Final = "ranking.json"
_VERSION: Final = 1
_WHAT: Final = {"task": "task: images, labels, groups, split or task.toml"}  # a digest tells nobody what to look for
_SCRAP: Final = ".part-"  # files that `cache.write_atomically` had not finished when the process was killed


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierChoice:
    """Who a search is about, as an earlier run of it chose."""

    candidates: tuple[str, ...]  # ids
    left_out: Mapping[str, str]  # id -> why
    images: int | None = None  # files that were drawn of a heap without labels


def default_workdir(data: TaskData) -> Path:
    """``vlmsel-NAME`` in the current folder, where NAME is the task folder's; "dataset" if the images have none."""
    name = Path(data).resolve().name if isinstance(data, (str, PathLike)) else "dataset"
    return Path.cwd() / f"vlmsel-{name}"


def task_in(workdir: Path, data: TaskData, *, groups: Groups | None = None) -> Path:
    """The task folder: the one that was named, or ``workdir/task``, where a data set is written with its groups."""
    return task_folder(data, folder=workdir / TASK, groups=groups, while_writing=_alone_in(workdir))


@contextmanager
def _alone_in(workdir: Path) -> Iterator[None]:
    """Nobody may be reading what an earlier run wrote."""
    with writing(workdir), locked(workdir / SEARCH_LOCK):
        yield


def check_usable(workdir: Path) -> None:
    """Refuse what cannot become a work directory, before anything is written.

    Raises:
        WorkdirError: it is a file or below one, or a folder with other things in it.
    """
    there = nearest_there(workdir)
    if not there.is_dir():
        raise WorkdirError(f"the work directory must be a folder; choose another, but got the file {str(there)!r}")
    if there == workdir and not (workdir / SEARCH_SETTINGS).exists():
        # what labelling leaves, or a search killed before it had settings
        ours = {"pixels", TASK, SEARCH_LOCK, TO_LABEL}
        names = (one.name for one in workdir.iterdir())
        others = sorted(name for name in names if name not in ours and not name.startswith(_SCRAP))
        if others:
            raise WorkdirError(
                f"the work directory must be new, empty or an earlier search's; choose another one, but got "
                f"{str(workdir)!r} with {', '.join(others[:3])}"
            )


def begin_in(workdir: Path, *, settings: Mapping[str, Json], choice: EarlierChoice, sink: Sink = discard) -> None:
    """Make ``workdir`` this search's own, or go on with it, and keep who the search is about.

    What killed runs left half written is removed: the caller holds the lock, so nobody is writing.

    Args:
        workdir: where the search works.
        settings: everything that must be the same for trials to be comparable; budgets are not part of it. Damaged ones
            are written anew: the study refuses other images, candidates and methods by itself.
        choice: who the search is about.
        sink: told that an earlier run is gone on with.

    Raises:
        WorkdirError: it belongs to a search with other settings, which are named.
    """
    path = workdir / SEARCH_SETTINGS
    wanted: dict[str, Json] = {"version": _VERSION, **settings}
    is_new = not path.exists()
    found = None if is_new else _read(path, sink=sink)
    if found is None:
        _write(path, wanted)
    other = [name for name in sorted(wanted) if found is not None and found.get(name) != wanted[name]]
    if other:
        named = ", ".join(_WHAT.get(name, name) for name in other)
        given = ", ".join(f"{name} {_brief(wanted[name])}" for name in other)
        raise WorkdirError(
            f"{workdir} belongs to a search with other settings ({named}): give the same command with the same folder "
            f"to resume it, or another workdir, but got {given}"
        )
    if not is_new:
        sink(Notice(text=f"going on with the search in {workdir}"))
        for scrap in workdir.rglob(f"{_SCRAP}*"):
            if scrap.is_file():
                scrap.unlink(missing_ok=True)
    _write(workdir / _CANDIDATES, _encoded(choice))


def _write(path: Path, record: Mapping[str, Json]) -> None:
    write_atomically(path, (json.dumps(sealed(record), indent=1, sort_keys=True) + "\n").encode())


def _read(path: Path, *, sink: Sink = discard) -> dict[str, Json] | None:
    """What `_write` wrote; None where there is nothing, or where it is damaged: it is then made again."""
    try:
        return unsealed(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        sink(Notice(text=f"{path} was damaged and is made again ({error})", level="warning"))
        return None


def _encoded(record: object) -> dict[str, Json]:
    plain: dict[str, Json] = json.loads(json.dumps(encode(record)))
    return plain


def _decoded(kind: type[R], record: dict[str, Json] | None) -> R | None:
    try:
        return None if record is None else decode(kind, record)
    except InputError:  # of another version
        return None


def _brief(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - one line of a terminal


def read_choice(workdir: Path, *, sink: Sink = discard) -> EarlierChoice | None:
    """The earlier run's choice; None where there is none or it cannot be read."""
    return _decoded(EarlierChoice, _read(workdir / _CANDIDATES, sink=sink))


def save_ranking(workdir: Path, ranking: Ranking) -> None:
    """Keep the ranking that the trials follow."""
    _write(workdir / _RANKING, _encoded(ranking))


def read_ranking(workdir: Path, *, sink: Sink = discard) -> Ranking | None:
    """The ranking of the earlier run; None where there is none or it cannot be read (it is then made again)."""
    return _decoded(Ranking, _read(workdir / _RANKING, sink=sink))
