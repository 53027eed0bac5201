"""Workers that each have a core of their own, on a machine that has none to spare: the clock is processor time.

Jobs run in threads of this process, one at a time, always the one whose clock is behind; between two things that it
tells none is interrupted. When the coordinator waits, its clock goes on to the next thing that a job tells or gives
back. What is assumed and not measured: a worker takes `START` seconds to begin and to import, and a tower trains `LENT`
times as fast while at least half of the workers lend it their threads (two threads against one on two cores:
results/busy-neighbour.json).
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import processor_time
from processor_time import MAIN, Clock

from vlmsel_auto.engines.engine import (
    ORDINARY,
    TRIES,
    Cancelled,
    Engine,
    Failure,
    Finished,
    Held,
    Job,
    Resources,
    Returned,
    Ticket,
    Told,
    V,
    ignore,
    outcome_of,
    perform,
)
from vlmsel_auto.pipeline.workers import WarmJob
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.study.trial_job import TrialJob
from vlmsel_auto.tuning.methods import method_of

START = 3.5
LENT = 1.66


@dataclass(frozen=True, kw_only=True)
class Span:
    """When a job ran on which worker."""

    job: Job[object]
    worker: int
    began: float
    ended: float


class _Running(threading.Thread):
    """A job, and its channel."""

    def __init__(self, ticket: Ticket, job: Job[object], told: Told, *, worker: int, at: float) -> None:
        super().__init__(daemon=True)
        self.ticket, self.job, self.told, self.worker, self.began = ticket, job, told, worker, at
        self.stopping = False
        self.given: Returned | Failure | None = None
        self.items: deque[object] = deque()
        self.next = at  # when it tells the first of ``items``, or has ended
        self._clock = Clock(at=at)
        self._go, self._back = threading.Event(), threading.Event()

    def run(self) -> None:
        """The thread."""
        self._go.wait()
        processor_time.use(self._clock)
        self._clock.set(self.began)
        given = perform(self.job, self, threads=1)
        self.next = self._clock.now() + (START if isinstance(self.job, WarmJob) else 0.0)
        self.given = given
        self._back.set()

    def tell(self, item: object) -> None:
        """Stand still until it is this job's turn again."""
        self.items.append(item)
        self.next = self._clock.now()
        self._go.clear()
        self._back.set()
        self._go.wait()
        self._clock.set(self.next)

    def step(self, *, lent: bool) -> None:
        """Let it go on until it tells something or has ended."""
        self._clock.speed = LENT if lent and _is_tower(self.job) else 1.0
        self._back.clear()
        self._go.set()
        self._back.wait()


def _is_tower(job: Job[object]) -> bool:
    return isinstance(job, TrialJob) and method_of(job.spec.method).trains is Trains.TOWER


@dataclass(eq=False)
class Simulated(Engine):
    """So many workers."""

    workers: int
    lends: bool = True
    spans: list[Span] = field(default_factory=list)
    _queue: deque[tuple[Ticket, Job[object], Told]] = field(default_factory=deque)
    _running: list[_Running] = field(default_factory=list)
    _ready: deque[Finished] = field(default_factory=deque)
    _free: dict[int, float] = field(init=False)  # workers without a job, and from when on they are there
    _last: int = 0

    def __post_init__(self) -> None:
        self._free = dict.fromkeys(range(self.workers), 0.0)

    @property
    def slots(self) -> int:
        """See `Engine`."""
        return self.workers

    @property
    def unfinished(self) -> int:
        """See `Engine`."""
        return len(self._queue) + len(self._running) + len(self._ready)

    def share(self, value: V) -> Held[V]:
        """The value itself."""
        return Held(value)

    def submit(
        self,
        job: Job[object],
        *,
        resources: Resources = ORDINARY,  # noqa: ARG002 - a core each
        told: Told = ignore,
        tries: int = TRIES,  # noqa: ARG002 - none dies
    ) -> Ticket:
        """See `Engine`."""
        self._last += 1
        self._queue.append((Ticket(self._last), job, told))
        self._fill()
        return Ticket(self._last)

    def finished(self, timeout: float | None = None) -> Finished | None:
        """See `Engine`."""
        end = None if timeout is None else MAIN.now() + timeout
        while not self._ready and self._running:
            first = min(self._running, key=lambda each: each.next)
            if end is not None and first.next > end:
                MAIN.set(max(MAIN.now(), end))
                return None
            MAIN.set(max(MAIN.now(), first.next))
            if first.items:
                first.told(first.items.popleft())
                if first in self._running:  # it was not cancelled
                    first.step(lent=self._lent())
            elif first.given is not None:
                self._leave(first, ready=first.next)
                self._ready.append(outcome_of(first.ticket, first.given))
                self._fill()
        return self._ready.popleft() if self._ready else None

    def stop(self, ticket: Ticket) -> None:
        """See `Engine`."""
        for each in self._running:
            each.stopping = each.stopping or each.ticket == ticket

    def cancel(self, ticket: Ticket) -> None:
        """See `Engine`; a new worker is begun at once."""
        for each in [each for each in self._running if each.ticket == ticket]:
            self._leave(each, ready=MAIN.now() + START, ended=MAIN.now())
            self._ready.append(Cancelled(ticket=ticket))

    def close(self) -> None:
        """See `Engine`."""
        self._queue.clear()
        self._running.clear()

    def _lent(self) -> bool:
        return self.lends and 2 * len(self._running) <= self.workers

    def _fill(self) -> None:
        while self._queue and self._free:
            ticket, job, told = self._queue.popleft()
            worker = min(self._free)
            at = max(MAIN.now(), self._free.pop(worker))
            self._running.append(begun := _Running(ticket, job, told, worker=worker, at=at))
            begun.start()
            begun.step(lent=self._lent())

    def _leave(self, running: _Running, *, ready: float, ended: float | None = None) -> None:
        self._running.remove(running)
        self._free[running.worker] = ready
        end = running.next if ended is None else ended
        self.spans.append(Span(job=running.job, worker=running.worker, began=running.began, ended=end))
