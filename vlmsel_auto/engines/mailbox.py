"""What jobs on a Ray cluster tell the coordinator, through an actor that answers whether the job should stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from vlmsel_auto.engines.engine import Failure, Job, Returned, Ticket, perform
from vlmsel_auto.process import older_objects_left_alone

_POLL_SECONDS: Final = 20.0  # that the mailbox waits for news before it says that there are none


@dataclass(eq=False)
class _Mailbox:
    """An actor: what jobs tell waits here for the coordinator, and wishes to stop wait for jobs."""

    items: list[tuple[int, object]] = field(default_factory=list)
    stops: set[int] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def tell(self, ticket: int, item: object) -> bool:
        """Leave an item; whether the job should stop."""
        self.items.append((ticket, item))
        self.news.set()
        return ticket in self.stops

    async def stop(self, ticket: int) -> None:
        """The job will be told so the next time."""
        self.stops.add(ticket)

    async def flush(self) -> None:
        """Let a waiting `take` return."""
        self.news.set()

    async def take(self) -> list[tuple[int, object]]:
        """What was left since the last time, in order; waits for something."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.news.wait(), _POLL_SECONDS)
        self.news.clear()
        taken, self.items = self.items, []
        return taken


@dataclass(slots=True)
class _WorkerChannel:
    mailbox: Any  # actor handle
    ticket: Ticket
    stopping: bool = False

    def tell(self, item: object) -> None:
        import ray

        with suppress(ray.exceptions.RayActorError):  # it is being made anew; the result comes another way
            self.stopping = bool(ray.get(self.mailbox.tell.remote(self.ticket, item)))


def work(job: Job[object], mailbox: Any, ticket: Ticket, threads: int) -> Returned | Failure:
    """The task of a worker."""
    with older_objects_left_alone():
        return perform(job, _WorkerChannel(mailbox, ticket), threads=threads)


def open_mailbox() -> Any:
    """Beside the coordinator, so that no other node takes it along when it goes."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor: Any = ray.remote(_Mailbox)
    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=True)
    return actor.options(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=1000, scheduling_strategy=here
    ).remote()
