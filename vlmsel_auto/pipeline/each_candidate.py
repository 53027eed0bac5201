"""Work with each candidate, which may fail without stopping the others: one job of an engine each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar, cast

from vlmsel_auto.engines.engine import Done, Engine, Failed, Finished, Job, Resources, Ticket
from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Event, Sink
from vlmsel_auto.process import is_out_of_memory, release_memory
from vlmsel_auto.records import Candidate

R = TypeVar("R")


def for_each(
    candidates: Sequence[Candidate],
    job_of: Callable[[Candidate], Job[object]],
    *,
    engine: Engine,
    device: str,
    sink: Sink,
) -> Generator[tuple[Candidate, object]]:
    """Candidates as their jobs end, with what a job gave, or the text of why it gave nothing.

    A job is made when it is submitted. Who stops before the end closes the generator, which cancels what runs.
    """
    needs = Resources(gpus=1.0 if device.startswith("cuda") else 0.0)
    waiting, running = deque(candidates), dict[Ticket, Candidate]()
    try:
        while waiting or running:
            while waiting and len(running) < engine.slots:
                one = waiting.popleft()
                ticket = engine.submit(job_of(one), resources=needs, told=lambda event: sink(cast("Event", event)))
                running[ticket] = one
            ended = engine.finished()
            if ended is not None and ended.ticket in running:  # else it is of an earlier stage
                yield running.pop(ended.ticket), _outcome(ended)
    finally:  # also on Ctrl+C
        for ticket in running:
            engine.cancel(ticket)


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
