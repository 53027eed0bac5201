"""Work with each candidate, which may fail without stopping the others: one job of an engine each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TypeVar, cast

from vlmsel_auto.engines.each_job import as_they_end, why_not
from vlmsel_auto.engines.engine import Done, Engine, Job, Resources
from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Event, Sink
from vlmsel_auto.process import is_out_of_memory, release_memory
from vlmsel_auto.records import Candidate

K = TypeVar("K")
R = TypeVar("R")


def outcomes(
    following: Callable[[], tuple[K, Job[object]] | None], *, engine: Engine, device: str, sink: Sink
) -> Generator[tuple[K, object]]:
    """As `each_job.as_they_end`, with what each job gave, or why it gave nothing."""
    needs = Resources(gpus=1.0 if device.startswith("cuda") else 0.0)

    def told(event: object) -> None:
        sink(cast("Event", event))

    with closing(as_they_end(engine, following, resources=needs, told=told)) as ending:
        for key, ended in ending:
            yield key, ended.result if isinstance(ended, Done) else why_not(ended)


def for_each(
    candidates: Sequence[Candidate],
    job_of: Callable[[Candidate], Job[object]],
    *,
    engine: Engine,
    device: str,
    sink: Sink,
) -> Generator[tuple[Candidate, object]]:
    """One job for each candidate, made when it is submitted; otherwise as `outcomes`."""
    jobs = ((one, job_of(one)) for one in candidates)
    return outcomes(lambda: next(jobs, None), engine=engine, device=device, sink=sink)


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
