"""Work with each candidate, which may fail without stopping the others: one job of an engine each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar, cast

from vlmsel_auto.engines.engine import Done, Engine, Failed, Finished, Job, Resources, Ticket
from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Event, Sink
from vlmsel_auto.process import is_out_of_memory, release_memory
from vlmsel_auto.records import Candidate

K = TypeVar("K")
R = TypeVar("R")


def as_they_end(
    next_job: Callable[[], tuple[K, Job[object]] | None], *, engine: Engine, device: str, sink: Sink
) -> Generator[tuple[K, object]]:
    """Keep every worker of an engine at a job: keys of jobs as these end, with what each gave, or why it gave nothing.

    ``next_job`` is asked whenever a worker is free; None: none for now. It ends when there is none and nothing runs.
    Who stops before closes the generator, which cancels what runs.
    """
    needs, running = Resources(gpus=1.0 if device.startswith("cuda") else 0.0), dict[Ticket, K]()
    try:
        while True:
            while len(running) < engine.slots and (found := next_job()) is not None:
                key, job = found
                running[engine.submit(job, resources=needs, told=lambda event: sink(cast("Event", event)))] = key
            if not running:
                return
            ended = engine.finished()
            if ended is not None and ended.ticket in running:  # else it is of an earlier stage
                yield running.pop(ended.ticket), _outcome(ended)
    finally:  # also on Ctrl+C
        for ticket in running:
            engine.cancel(ticket)


def for_each(
    candidates: Sequence[Candidate],
    job_of: Callable[[Candidate], Job[object]],
    *,
    engine: Engine,
    device: str,
    sink: Sink,
) -> Generator[tuple[Candidate, object]]:
    """One job for each candidate, made when it is submitted; otherwise as `as_they_end`."""
    jobs = ((one, job_of(one)) for one in candidates)
    return as_they_end(lambda: next(jobs, None), engine=engine, device=device, sink=sink)


def _outcome(ended: Finished) -> object:
    match ended:
        case Done(result=result):
            return result
        case Failed(failure=failure):
            return str(failure)
        case _:
            return "its worker died each time (out of memory?)"


def attempt(work: Callable[[], R]) -> R | str:
    """What ``work`` with one candidate gives, or why it cannot be done; its model is released in either case."""
    try:
        return work()
    except VlmselError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:  # torch: out of memory, operators a device lacks
        what = "out of memory" if is_out_of_memory(error) else type(error).__name__
        return f"{what}: {' '.join(str(error).split())[:300]}"
    finally:
        release_memory()
