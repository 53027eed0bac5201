"""What a worker needs that does not see the disk of the coordinator, and what it leaves.

A worker that sees the search's work directory leaves a trial's files there. Another one works in a folder of its own:
images and a candidate's files reach its node once, the files of an earlier trial come with the job, and those of the
trial go back with the result.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from vlmsel_auto.cache import Store, write_atomically
from vlmsel_auto.engines.engine import Shared
from vlmsel_auto.engines.held_folder import hold
from vlmsel_auto.process import locked
from vlmsel_auto.records import Candidate, PixelSource
from vlmsel_auto.study.runner import TrialRunner
from vlmsel_auto.tuning.checkpoints import trial_dir

_MARK: Final = ".coordinator"
_WAIT: Final = 600.0  # seconds, for another process of the node that unpacks the same files

Files = Mapping[str, bytes]  # by name


@dataclass(frozen=True, kw_only=True, slots=True)
class Luggage:
    """What goes along with a job."""

    pixels: Shared[PixelSource]
    models: Mapping[str, Shared[Files]]  # files of candidates that are folders, by candidate
    trials: Mapping[int, Files]  # of earlier trials, by number


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """Where the jobs of a search run on a node."""

    runner: Shared[TrialRunner]
    mark: str  # names the search: the work directory holds it
    luggage: Luggage | None = None

    def open(self, candidate: str) -> tuple[TrialRunner, bool]:
        """The runner for a trial of ``candidate`` here; and whether it works away from the search's directory."""
        runner = self.runner.get()
        if self.luggage is None or _is_marked(runner.workdir, self.mark):
            return runner, False
        return _at_home(runner, self.luggage, name=self.mark, candidate=runner.table[candidate]), True


def mark(workdir: Path, name: str) -> None:
    """Leave a sign by which workers know the work directory."""
    write_atomically(workdir / _MARK, name.encode())


def unmark(workdir: Path) -> None:
    """Take it away."""
    (workdir / _MARK).unlink(missing_ok=True)


def files_in(folder: Path) -> Files:
    """The files of a folder, whole."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}


def unpack(files: Files, folder: Path) -> None:
    """The inverse of `files_in`."""
    for name, content in files.items():
        write_atomically(folder / name, content)


def _is_marked(workdir: Path, name: str) -> bool:
    try:
        return (workdir / _MARK).read_text("utf-8") == name
    except OSError:
        return False


def _at_home(runner: TrialRunner, luggage: Luggage, *, name: str, candidate: Candidate) -> TrialRunner:
    """The same on a node of its own, in a folder of the search that all its processes use."""
    home = hold(name)
    for number, files in luggage.trials.items():
        unpack(files, trial_dir(home, number))
    if candidate.id in luggage.models:
        candidate = _unpacked(candidate, luggage.models[candidate.id], home)
    return replace(
        runner,
        workdir=home,
        store=Store(home / "targets"),
        task=replace(runner.task, pixels=luggage.pixels.get()),
        table={**runner.table, candidate.id: candidate},
    )


def _unpacked(candidate: Candidate, files: Shared[Files], home: Path) -> Candidate:
    """The candidate in a folder of this node, once for all its processes."""
    place = home / "models" / candidate.id.replace("/", "_")
    with locked(place.with_name(f"{place.name}.lock"), wait=_WAIT):
        if not place.exists():
            part = place.with_name(f"{place.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            unpack(files.get(), part)
            part.rename(place)
    return replace(candidate, path=place)


def taken(home: Path, number: int, *, luggage: Luggage | None = None) -> Files:
    """The files of a trial, but those that came in the ``luggage``; all are then gone from here."""
    folder = trial_dir(home, number)
    files = files_in(folder) if folder.is_dir() else {}
    shutil.rmtree(folder, ignore_errors=True)
    came = {} if luggage is None else luggage.trials.get(number, {})
    return {name: content for name, content in files.items() if came.get(name) != content}
