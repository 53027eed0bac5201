"""The one loop over jobs: so many at once as the engine runs, and what became of each as soon as it ends."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from vlmsel_auto.engines.engine import (
    ORDINARY,
    Cancelled,
    Done,
    Engine,
    Failed,
    Finished,
    Job,
    Lost,
    Resources,
    Ticket,
    Told,
    ignore,
)

K = TypeVar("K")


def as_they_end(
    engine: Engine,
    following: Callable[[], tuple[K, Job[object]] | None],
    *,
    resources: Resources = ORDINARY,
    told: Told = ignore,
    in_line: int = 0,
) -> Generator[tuple[K, Finished]]:
    """Run jobs, and give for each its key and what became of it.

    Who stops before the end closes the generator, which cancels what runs.

    Args:
        engine: may still finish jobs of earlier loops, which are passed over.
        following: gives the next job, and its key, when there is room for one; None: there is none now. It is asked
            again after each job that ends; where none runs, None is the end.
        resources: of each job.
        told: takes what jobs tell.
        in_line: jobs that are submitted beyond those that run, so that no worker waits for the next.
    """
    running: dict[Ticket, K] = {}
    try:
        while True:
            while len(running) < engine.slots + in_line and (found := following()) is not None:
                key, job = found
                running[engine.submit(job, resources=resources, told=told)] = key
            if not running:
                return
            ended = engine.finished()
            if ended is not None and ended.ticket in running:
                yield running.pop(ended.ticket), ended
    finally:  # also on Ctrl+C
        for ticket in running:
            engine.cancel(ticket)


def why_not(ended: Finished) -> str:
    """Why a job gave nothing; empty: it ran to its end."""
    match ended:
        case Done():
            return ""
        case Failed(failure=failure):
            return str(failure)
        case Cancelled():
            return "its worker did not end it in time"
        case Lost():
            return "its worker process died each time that it ran (out of memory?)"
