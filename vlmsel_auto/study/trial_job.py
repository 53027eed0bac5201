"""A trial as a job of an engine: a record that a worker can run anywhere, and what comes back.

A worker that sees the search's work directory leaves the trial's files there. Another one works in a folder of its own:
images and a candidate's files reach its node once, the state of a paused trial comes with the job, and weights and
state go back with the result.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from vlmsel_auto.cache import Store, write_atomically
from vlmsel_auto.engines.engine import Channel, Shared
from vlmsel_auto.process import locked
from vlmsel_auto.records import Candidate, PixelSource, TrialOrigin, TrialSpec
from vlmsel_auto.study.runner import Attempt, TrialRunner
from vlmsel_auto.tuning.checkpoints import trial_dir

_MARK: Final = ".coordinator"
_WAIT: Final = 600.0  # seconds, for another process of the node that unpacks the same files

Files = Mapping[str, bytes]  # by name


@dataclass(frozen=True, kw_only=True, slots=True)
class Luggage:
    """What workers need that do not see the disk of the coordinator."""

    pixels: Shared[PixelSource]
    models: Mapping[str, Shared[Files]]  # files of candidates that are folders, by candidate
    paused: Files  # of the trial that goes on


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What a worker gives back."""

    attempt: Attempt
    files: Files  # of the trial, where the work directory was not to be seen


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialJob:
    """One trial."""

    runner: Shared[TrialRunner]
    mark: str  # names the search: the work directory holds it
    spec: TrialSpec
    number: int
    origin: TrialOrigin
    deadline: float | None  # `time.time`: clocks of nodes agree, their monotonic ones do not
    continues: int | None
    luggage: Luggage | None = None

    def run(self, channel: Channel) -> Ran:
        """Run it. Its events are told; it is paused after the epoch in which the coordinator asked for that.

        Raises:
            OSError: its files cannot be written.
        """
        runner = self.runner.get()
        away = self.luggage is not None and not _is_marked(runner.workdir, self.mark)
        if away and self.luggage is not None:
            runner = _at_home(runner, self.luggage, job=self)
        left = None if self.deadline is None else self.deadline - time.time()
        attempt = runner.attempt(
            self.spec,
            number=self.number,
            origin=self.origin,
            report=lambda *_: channel.stopping,
            deadline=None if left is None else time.monotonic() + left,
            continues=self.continues,
            sink=channel.tell,
        )
        return Ran(attempt=attempt, files=_taken(runner.workdir, self.number) if away else {})


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


def _at_home(runner: TrialRunner, luggage: Luggage, *, job: TrialJob) -> TrialRunner:
    """The same on a node of its own, in a folder of the search that all its processes use."""
    home = Path(tempfile.gettempdir()) / f"vlmsel-{job.mark}"
    home.mkdir(mode=0o700, exist_ok=True)
    candidate = runner.table[job.spec.candidate]
    if job.continues is not None:
        unpack(luggage.paused, trial_dir(home, job.continues))
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


def _taken(home: Path, number: int) -> Files:
    """The files of a trial, which are then gone from here."""
    folder = trial_dir(home, number)
    files = files_in(folder) if folder.is_dir() else {}
    shutil.rmtree(folder, ignore_errors=True)
    return files
