"""From a trial that the study began to a job of an engine. Workers leave a trial's files in the work directory."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Self

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.engines.engine import Channel, Engine, Resources, Shared, Ticket, Told
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.tuning.runner import Attempt, Trial, TrialRunner

_MARK: Final = ".coordinator"  # file by which workers know the work directory


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialJob:
    """One trial as a job: a worker that sees the work directory can run it anywhere."""

    runner: Shared[TrialRunner]
    trial: Trial  # with a deadline of `time.time`: clocks of nodes agree, their monotonic ones do not
    mark: str  # names the search: the work directory holds it

    def run(self, channel: Channel) -> Attempt:
        """Run it. Its events are told; it ends after the epoch in which the coordinator asked for that.

        Raises:
            WorkdirError: the work directory is not to be seen from here.
            OSError: its files cannot be written.
        """
        runner, mark = self.runner.get(), ""
        with suppress(OSError):
            mark = (runner.workdir / _MARK).read_text("utf-8")
        if mark != self.mark:
            raise WorkdirError(
                "every node must see the work directory at the same path: put it on a disk that they share, with the "
                f"images, but got {runner.workdir} on a node that does not"
            )
        trial = replace(self.trial, deadline=_shifted(self.trial.deadline, time.monotonic() - time.time()))
        return runner.attempt(trial, report=lambda *_: channel.stopping, sink=channel.tell)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dispatch:
    """Sends the trials of one search to an engine. A context manager: within it the work directory has its mark."""

    engine: Engine
    runner: TrialRunner
    mark: str = field(default_factory=lambda: secrets.token_hex(8))  # of this run of the search

    def __enter__(self) -> Self:
        write_atomically(self.runner.workdir / _MARK, self.mark.encode())
        return self

    def __exit__(self, *exc: object) -> None:
        (self.runner.workdir / _MARK).unlink(missing_ok=True)

    def submit(self, trial: Trial, *, told: Told) -> Ticket:
        """Begin a trial."""
        shifted = replace(trial, deadline=_shifted(trial.deadline, time.time() - time.monotonic()))
        job = TrialJob(runner=self._shared, trial=shifted, mark=self.mark)
        # another try is a trial of its own, which goes on from the state that this one kept
        return self.engine.submit(job, resources=self._resources(trial.spec.candidate), told=told, tries=1)

    def _resources(self, candidate: str) -> Resources:
        memory: int | None = None
        with suppress(OSError):  # the folder of a candidate is gone: its trial will say so
            memory = facts_of(self.runner.table[candidate]).memory_bytes
        gpus = 1.0 if self.runner.device.type == "cuda" else 0.0
        return Resources(gpus=gpus, memory=memory or 0)

    @cached_property
    def _shared(self) -> Shared[TrialRunner]:
        return self.engine.share(self.runner)


def _shifted(deadline: float | None, offset: float) -> float | None:
    return None if deadline is None else deadline + offset
