"""One job of an engine for each candidate, as many at once as the engine has slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import cast

from vlmsel_auto.engines.engine import Done, Engine, Failed, Finished, Job, Resources, Ticket
from vlmsel_auto.events import Event, Sink
from vlmsel_auto.records import Candidate


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
