"""Jobs that keep their results on disk: those that are missing are made, by an engine, and the others read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from vlmsel_auto.cache import Store
from vlmsel_auto.engines.each_job import as_they_end, why_not
from vlmsel_auto.engines.engine import Channel, Engine, Resources
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.engines.local import LocalEngine
from vlmsel_auto.events import Notice, Sink, StageProgress, StageStarted

V_co = TypeVar("V_co", covariant=True)
V = TypeVar("V")

_ONE_THREAD = Resources(threads=1)  # parallel are the jobs, not the arithmetic in them


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """Where a library's figures are made, and kept until it is written."""

    cache: Path  # folder of finished results and decoded images
    jobs: int = 1  # processes, each with one torch thread
    device: str = "cpu"  # where the models run

    @property
    def store(self) -> Store:
        """Embeddings and profiles."""
        return Store(self.cache / "store")


class KeptJob(Protocol[V_co]):
    """A piece of work that keeps its own result on disk. Must be picklable."""

    @property
    def label(self) -> str:
        """What it is for people."""
        ...

    def kept(self) -> V_co | None:
        """The result of an earlier run; None when there is none that can be used."""
        ...

    def run(self, channel: Channel) -> None:
        """Do it and keep the result."""
        ...


def open_engine(workers: int) -> Engine:
    """This process for one worker, else processes of one thread each."""
    return InProcess() if workers == 1 else LocalEngine(workers, threads=1)


def results_of(
    jobs: Sequence[KeptJob[V]], *, unit: str, workers: int, sink: Sink
) -> tuple[dict[int, V], dict[int, str]]:
    """Results of jobs that are there, or are made now, and why some could not be made: by position in ``jobs``.

    ``unit`` names what the jobs make, in the plural; ``sink`` takes the events of stage "library".
    """
    found = {at: value for at, job in enumerate(jobs) if (value := job.kept()) is not None}
    failures: dict[int, str] = {}
    known, began = len(found), time.monotonic()
    missing = [at for at in range(len(jobs)) if at not in found]
    sink(StageStarted(stage="library", total=len(jobs), text=f"{known:,} of {len(jobs):,} {unit} are known"))
    waiting = iter([(at, jobs[at]) for at in missing])
    with (
        open_engine(min(workers, max(1, len(missing)))) as engine,
        # one waits in line, and no more, for pickled jobs are large
        closing(as_they_end(engine, lambda: next(waiting, None), resources=_ONE_THREAD, in_line=1)) as ending,
    ):
        for done, (at, ended) in enumerate(ending, start=1):
            job, reason = jobs[at], why_not(ended)
            value = None if reason else job.kept()
            if value is not None:
                found[at] = value
            else:
                failures[at] = reason or "the result cannot be read back"
                sink(Notice(level="warning", text=f"{job.label} failed: {failures[at]}"))
            left = (time.monotonic() - began) / done * (len(missing) - done)
            sink(StageProgress(stage="library", done=known + done, text=f"{job.label}; about {left / 60:.1f} min left"))
    return found, failures
