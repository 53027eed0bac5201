"""The engine of this process: one job after the other, in the order in which they were submitted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from vlmsel_auto.engines.engine import (
    ORDINARY,
    TRIES,
    Cancelled,
    Engine,
    Finished,
    Held,
    Job,
    Resources,
    Ticket,
    Told,
    V,
    ignore,
    outcome_of,
    perform,
)


@dataclass(kw_only=True, slots=True)
class _Queued:
    """A job, and its line to the coordinator, who is in the same thread."""

    ticket: Ticket
    job: Job[object]
    threads: int | None
    told: Told
    stopping: bool = False

    def tell(self, item: object) -> None:
        self.told(item)


@dataclass(kw_only=True, eq=False)
class InProcess(Engine):
    """Jobs run within `finished`; one that kills its process kills the coordinator."""

    _queue: deque[_Queued] = field(default_factory=deque)
    _cancelled: deque[Ticket] = field(default_factory=deque)
    _current: _Queued | None = None
    _last: int = 0

    @property
    def slots(self) -> int:
        """One."""
        return 1

    @property
    def unfinished(self) -> int:
        """See `Engine`."""
        return len(self._queue) + len(self._cancelled) + (self._current is not None)

    def share(self, value: V) -> Held[V]:
        """The value itself."""
        return Held(value)

    def submit(
        self,
        job: Job[object],
        *,
        resources: Resources = ORDINARY,
        told: Told = ignore,
        tries: int = TRIES,  # noqa: ARG002 - there is no worker that could die
    ) -> Ticket:
        """See `Engine`."""
        self._last += 1
        ticket = Ticket(self._last)
        self._queue.append(_Queued(ticket=ticket, job=job, threads=resources.threads, told=told))
        return ticket

    def finished(self, timeout: float | None = None) -> Finished | None:
        """Run the next job to its end, however long that takes."""
        del timeout
        if self._cancelled:
            return Cancelled(ticket=self._cancelled.popleft())
        if not self._queue:
            return None
        self._current = current = self._queue.popleft()
        try:
            return outcome_of(current.ticket, perform(current.job, current, threads=current.threads))
        finally:
            self._current = None

    def stop(self, ticket: Ticket) -> None:
        """See `Engine`."""
        if self._current is not None and self._current.ticket == ticket:
            self._current.stopping = True

    def cancel(self, ticket: Ticket) -> None:
        """Take a job out of the queue; the one that runs is asked to stop, as nothing can end it from outside."""
        self.stop(ticket)
        for each in [each for each in self._queue if each.ticket == ticket]:
            self._queue.remove(each)
            self._cancelled.append(ticket)

    def close(self) -> None:
        """Forget what is queued."""
        self._queue.clear()
        self._cancelled.clear()
