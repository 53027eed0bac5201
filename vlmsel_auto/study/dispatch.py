"""From a trial that the study began to a job of an engine, and back.

A worker that sees the search's work directory leaves a trial's files there. Another one works in a folder of its own:
images and a candidate's files reach its node once, the files of an earlier trial come with the job, and those of the
trial go back with the result.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from vlmsel_auto.cache import Store, write_atomically
from vlmsel_auto.engines.engine import Channel, Engine, Resources, Shared, Ticket, Told
from vlmsel_auto.engines.held_folder import hold
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.process import locked
from vlmsel_auto.records import Candidate, PixelSource
from vlmsel_auto.tasks.pixels import pack
from vlmsel_auto.tuning.checkpoints import trial_dir
from vlmsel_auto.tuning.runner import Attempt, Trial, TrialRunner

_MARK: Final = ".coordinator"  # file by which workers know the work directory
_WAIT: Final = 600.0  # seconds, for another process of the node that unpacks the same files

Files = Mapping[str, bytes]  # by name


def files_in(folder: Path) -> Files:
    """The files of a folder, whole."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}


def unpack(files: Files, folder: Path) -> None:
    """The inverse of `files_in`."""
    for name, content in files.items():
        write_atomically(folder / name, content)


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """What goes along with a job to a worker that does not see the disk of the coordinator."""

    pixels: Shared[PixelSource]
    models: Mapping[str, Shared[Files]]  # files of candidates that are folders, by candidate
    trials: Mapping[int, Files]  # of earlier trials, by number


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """Where the jobs of a search run on a node."""

    runner: Shared[TrialRunner]
    mark: str  # names the search: the work directory holds it
    payload: Payload | None = None

    def open(self, candidate: str) -> tuple[TrialRunner, bool]:
        """The runner for a trial of ``candidate`` here; and whether it works away from the search's directory."""
        runner = self.runner.get()
        if self.payload is None or self._sees(runner.workdir):
            return runner, False
        return self._own(runner, self.payload, candidate=runner.table[candidate]), True

    def _sees(self, workdir: Path) -> bool:
        try:
            return (workdir / _MARK).read_text("utf-8") == self.mark
        except OSError:
            return False

    def _own(self, runner: TrialRunner, payload: Payload, *, candidate: Candidate) -> TrialRunner:
        """The same on a node of its own, in a folder of the search that all its processes use."""
        folder = hold(self.mark)
        for number, files in payload.trials.items():
            unpack(files, trial_dir(folder, number))
        if candidate.id in payload.models:
            candidate = _unpacked(candidate, payload.models[candidate.id], folder)
        return replace(
            runner,
            workdir=folder,
            store=Store(folder / "targets"),
            task=replace(runner.task, pixels=payload.pixels.get()),
            candidates=tuple({**runner.table, candidate.id: candidate}.values()),
        )


def _unpacked(candidate: Candidate, files: Shared[Files], folder: Path) -> Candidate:
    """The candidate in a folder of this node, once for all its processes."""
    place = folder / "models" / candidate.id.replace("/", "_")
    with locked(place.with_name(f"{place.name}.lock"), wait=_WAIT):
        if not place.exists():
            part = place.with_name(f"{place.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            unpack(files.get(), part)
            part.rename(place)
    return replace(candidate, path=place)


def taken(folder: Path, number: int) -> Files:
    """The files of a trial, which are then gone from here."""
    place = trial_dir(folder, number)
    files = files_in(place) if place.is_dir() else {}
    shutil.rmtree(place, ignore_errors=True)
    return files


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What a worker gives back."""

    attempt: Attempt
    files: Files  # of the trial, where the work directory was not to be seen


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialJob:
    """One trial as a job: a worker can run it anywhere."""

    workspace: Workspace
    trial: Trial  # with a deadline of `time.time`: clocks of nodes agree, their monotonic ones do not

    def run(self, channel: Channel) -> Ran:
        """Run it. Its events are told; it ends after the epoch in which the coordinator asked for that.

        Raises:
            OSError: its files cannot be written.
        """
        runner, away = self.workspace.open(self.trial.spec.candidate)
        trial = replace(self.trial, deadline=_shifted(self.trial.deadline, time.monotonic() - time.time()))
        attempt = runner.attempt(trial, report=lambda *_: channel.stopping, sink=channel.tell)
        return Ran(attempt=attempt, files=taken(runner.workdir, trial.number) if away else {})


@dataclass(frozen=True, kw_only=True, eq=False)
class Dispatch:
    """Sends the trials of one search to an engine."""

    engine: Engine
    runner: TrialRunner
    name: str = field(default_factory=lambda: secrets.token_hex(8))  # of this run of the search
    _models: dict[str, Shared[Files]] = field(default_factory=dict)

    def submit(self, trial: Trial, *, told: Told) -> Ticket:
        """Begin a trial."""
        candidate = trial.spec.candidate
        job = TrialJob(
            workspace=self._workspace(candidate, trial.continues),
            trial=replace(trial, deadline=_shifted(trial.deadline, time.time() - time.monotonic())),
        )
        # another try is a trial of its own, which goes on from the state that this one kept
        return self.engine.submit(job, resources=self._resources(candidate), told=told, tries=1)

    def receive(self, number: int, files: Files) -> None:
        """Keep the files that came back with a trial."""
        unpack(files, trial_dir(self.runner.workdir, number))

    def close(self) -> None:
        """Leave nothing in the work directory."""
        (self.runner.workdir / _MARK).unlink(missing_ok=True)

    def _resources(self, candidate: str) -> Resources:
        memory: int | None = None
        with suppress(OSError):  # the folder of a candidate is gone: its trial will say so
            memory = facts_of(self.runner.table[candidate]).memory_bytes
        gpus = 1.0 if self.runner.device.type == "cuda" else 0.0
        return Resources(gpus=gpus, memory=memory or 0)

    @cached_property
    def _shared(self) -> Shared[TrialRunner]:
        if self.engine.apart:
            mark(self.runner.workdir, self.name)
        return self.engine.share(self.runner)

    @cached_property
    def _pixels(self) -> Shared[PixelSource]:
        views = [each.view for each in self.runner.table.values()]
        return self.engine.share(pack(self.runner.task, views))

    def _workspace(self, candidate: str, earlier: int | None) -> Workspace:
        """For a job on a candidate that needs the files of an ``earlier`` trial."""
        payload = self._payload(self.runner.table[candidate], earlier) if self.engine.apart else None
        return Workspace(runner=self._shared, mark=self.name, payload=payload)

    def _payload(self, candidate: Candidate, earlier: int | None) -> Payload:
        if candidate.path is not None and candidate.id not in self._models:
            self._models[candidate.id] = self.engine.share(files_in(candidate.path))
        trials = {} if earlier is None else {earlier: files_in(trial_dir(self.runner.workdir, earlier))}
        return Payload(pixels=self._pixels, models=dict(self._models), trials=trials)


def mark(workdir: Path, name: str) -> None:
    """Leave a sign by which workers know the work directory."""
    write_atomically(workdir / _MARK, name.encode())


def _shifted(deadline: float | None, offset: float) -> float | None:
    return None if deadline is None else deadline + offset
