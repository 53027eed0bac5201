"""Independent jobs in one process or in a pool of processes, each with one thread; a dying worker costs one job."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from vlmsel_auto.events import Notice, Sink, StageProgress, StageStarted

V_co = TypeVar("V_co", covariant=True)
V = TypeVar("V")


class Job(Protocol[V_co]):
    """A piece of work that keeps its own result on disk. Must be picklable."""

    @property
    def label(self) -> str:
        """What it is for people."""
        ...

    def kept(self) -> V_co | None:
        """The result of an earlier run; None when there is none that can be used."""
        ...

    def run(self) -> None:
        """Do it and keep the result."""
        ...


J = TypeVar("J", bound=Job[object])


def results_of(jobs: Sequence[Job[V]], *, unit: str, workers: int, sink: Sink) -> tuple[dict[int, V], dict[int, str]]:
    """Results of jobs that are there, or are made now, and why some could not be made: by position in ``jobs``.

    ``unit`` names what the jobs make, in the plural; ``sink`` takes the events of stage "library".
    """
    found = {at: value for at, job in enumerate(jobs) if (value := job.kept()) is not None}
    failures: dict[int, str] = {}
    known, began = len(found), time.monotonic()
    waiting = {id(job): at for at, job in enumerate(jobs) if at not in found}
    sink(StageStarted(stage="library", total=len(jobs), text=f"{known:,} of {len(jobs):,} {unit} are known"))
    for done, (job, failed) in enumerate(run_jobs([jobs[at] for at in waiting.values()], workers=workers), start=1):
        value = None if failed else job.kept()
        if value is not None:
            found[waiting[id(job)]] = value
        else:
            reason = failures[waiting[id(job)]] = failed or "the result cannot be read back"
            sink(Notice(level="warning", text=f"{job.label} failed: {reason}"))
        left = (time.monotonic() - began) / done * (len(waiting) - done)
        sink(StageProgress(stage="library", done=known + done, text=f"{job.label}; about {left / 60:.1f} min left"))
    return found, failures


def run_jobs(jobs: Sequence[J], *, workers: int) -> Iterator[tuple[J, str]]:
    """Run jobs; yields each as it ends, with "" or the reason of its failure.

    With one worker they run in this process. With several, processes are spawned; if one dies, the jobs
    that were in flight are run again one at a time, and one that kills its process again is reported as failed.
    """
    if workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with threadpool_limits(1):
                for job in jobs:
                    yield job, _run(job)
        finally:
            torch.set_num_threads(threads)
        return
    queue = deque(jobs)
    while queue:
        lost: list[J] = []
        for job, outcome in _pooled(queue, workers):
            if outcome is None:
                lost.append(job)
            else:
                yield job, outcome
        for suspect in lost:
            for job, outcome in _pooled(deque([suspect]), 1):
                yield job, "the worker process died (out of memory?)" if outcome is None else outcome


def _pooled(queue: deque[J], workers: int) -> Iterator[tuple[J, str | None]]:
    """Take jobs from the queue into a pool; if the pool breaks, those in flight have the outcome None and it ends."""
    context = multiprocessing.get_context("spawn")  # forked children of a threaded torch process can hang
    pool = ProcessPoolExecutor(min(workers, len(queue)), mp_context=context, initializer=_one_thread)
    running: dict[Future[str], J] = {}
    broken = False
    try:
        while running or (queue and not broken):
            while queue and not broken and len(running) < workers:
                try:
                    running[pool.submit(_run, queue[0])] = queue[0]
                except BrokenProcessPool:  # noticed before any result was
                    broken = True
                else:
                    queue.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    broken = True
                    yield job, None
                else:
                    yield job, outcome
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run(job: Job[object]) -> str:
    try:
        job.run()
    except Exception as error:  # noqa: BLE001 - whatever one job raises, the others go on and the reason is told
        return f"{type(error).__name__}: {error}"
    return ""


def _one_thread() -> None:
    """For a worker's whole life: parallel are the jobs, not the arithmetic in them."""
    torch.set_num_threads(1)
    threadpool_limits(1)
