"""The engine of this process: one job after the other, in the order in which they were submitted."""

from __future__ import annotations

from collections import deque

from vlmsel_auto.engines.engine import Cancelled, Engine, Finished, Held, Submission, Ticket, V, outcome_of, perform


class InProcess(Engine):
    """Jobs run within `finished`; one that kills its process kills the coordinator."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: deque[Submission] = deque()
        self._current: Submission | None = None

    @property
    def slots(self) -> int:
        """One."""
        return 1

    def share(self, value: V) -> Held[V]:
        """The value itself."""
        return Held(value)

    def _enqueue(self, submission: Submission) -> None:
        self._queue.append(submission)

    def finished(self, timeout: float | None = None) -> Finished | None:
        """Run the next job to its end, however long that takes."""
        del timeout
        if self._ready:
            return self._ready.popleft()
        if not self._queue:
            return None
        self._current = current = self._queue.popleft()
        try:
            return outcome_of(current.ticket, perform(current.job, current, threads=current.resources.threads))
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
            self._ready.append(Cancelled(ticket=ticket))

    def close(self) -> None:
        """Forget what is queued."""
        self._queue.clear()
        self._ready.clear()
