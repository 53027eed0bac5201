"""So many processes of this machine, each with its own worker (`lane`)."""

from __future__ import annotations

import secrets
from collections import deque
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Pipe, wait
from pathlib import Path
from typing import Final, Generic, cast

import cloudpickle  # type: ignore[import-untyped]  # it ships no types

from vlmsel_auto.engines.engine import (
    ORDINARY,
    TRIES,
    Cancelled,
    Engine,
    Failed,
    Failure,
    Finished,
    Job,
    Lost,
    Patience,
    Resources,
    Ticket,
    Told,
    V,
    ignore,
    outcome_of,
)
from vlmsel_auto.engines.held_folder import hold, release
from vlmsel_auto.engines.lane import Entry, Lane

_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class _Filed(Generic[V]):
    """A value that the coordinator pickled into a file of its own."""

    path: str

    def get(self) -> V:
        """Read once a process."""
        return cast("V", _read(self.path))


@lru_cache(maxsize=8)
def _read(path: str) -> object:
    return cloudpickle.loads(Path(path).read_bytes())  # written by the coordinator into a folder of its own


class LocalEngine(Engine):
    """So many worker processes on this machine.

    Args:
        workers: of them.
        threads: of each; None: the machine's cores shared out evenly, at least one each.
        gpus: names as in CUDA_VISIBLE_DEVICES, which workers get in turn; none leaves them as they are.
    """

    def __init__(self, workers: int, *, threads: int | None = None, gpus: tuple[str, ...] = ()) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, but got {workers!r}")
        self._slots = workers
        self.threads = threads or max(1, _cores() // workers)
        self._lanes: list[Lane | None] = [None] * workers
        self.environments: list[dict[str, str]] = [
            dict.fromkeys(_THREADS, str(self.threads))
            | ({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {})
            for place in range(workers)
        ]
        self._queue: deque[Entry] = deque()
        self._ready: deque[Finished] = deque()
        self._awake, self._wake = Pipe(duplex=False)
        self._folder = hold(secrets.token_hex(8))
        self._last = 0

    @property
    def slots(self) -> int:
        """Workers."""
        return self._slots

    @property
    def unfinished(self) -> int:
        """See `Engine`."""
        return len(self._queue) + len(self._ready) + len(self._busy())

    def share(self, value: V) -> _Filed[V]:
        """Pickle the value into a file that each worker reads once."""
        path = self._folder / secrets.token_hex(8)
        path.write_bytes(cloudpickle.dumps(value))
        return _Filed(str(path))

    def submit(
        self, job: Job[object], *, resources: Resources = ORDINARY, told: Told = ignore, tries: int = TRIES
    ) -> Ticket:
        """See `Engine`."""
        self._last += 1
        ticket = Ticket(self._last)
        try:
            pickled = cloudpickle.dumps(job)
        except Exception as error:  # noqa: BLE001 - pickling calls the job's own code; it fails alone
            self._ready.append(Failed(ticket=ticket, failure=Failure.of(error)))
            return ticket
        threads = resources.threads or self.threads
        self._queue.append(Entry(ticket=ticket, pickled=pickled, threads=threads, told=told, tries=tries))
        self._fill()
        return ticket

    def finished(self, timeout: float | None = None) -> Finished | None:
        """See `Engine`."""
        patience = Patience(timeout)
        while True:
            self._settle()
            self._fill()
            if self._ready:
                return self._ready.popleft()
            busy = self._busy()
            heard = wait([*(lane.pipe for lane in busy), self._awake], patience.left()) if busy else []
            if not heard:
                return None
            if self._awake in heard:
                self._awake.recv_bytes()
            for lane in busy:
                lane.drain()

    def stop(self, ticket: Ticket) -> None:
        """See `Engine`."""
        for lane in self._busy():
            if lane.entry is not None and lane.entry.ticket == ticket:
                lane.stop(ticket)

    def cancel(self, ticket: Ticket) -> None:
        """See `Engine`."""
        for entry in [each for each in self._queue if each.ticket == ticket]:
            self._queue.remove(entry)
            self._ready.append(Cancelled(ticket=ticket))
        self._settle()
        for place, lane in enumerate(self._lanes):
            if lane is not None and lane.entry is not None and lane.entry.ticket == ticket:
                lane.entry.cancelled = True
                self._lanes[place] = None
                lane.kill()
                self._ready.append(Cancelled(ticket=ticket))

    def close(self) -> None:
        """See `Engine`."""
        self._queue.clear()
        self._ready.clear()
        for place, lane in enumerate(self._lanes):
            if lane is not None:
                lane.kill()
            self._lanes[place] = None
        self._wake.close()
        self._awake.close()
        release(self._folder)

    def _busy(self) -> list[Lane]:
        return [lane for lane in self._lanes if lane is not None and lane.entry is not None]

    def _fill(self) -> None:
        """Give what is queued to workers that have nothing to do."""
        for place, lane in enumerate(self._lanes):
            if not self._queue:
                return
            if lane is not None and lane.entry is not None:
                continue
            entry = self._queue.popleft()
            try:
                self._lanes[place] = used = lane or Lane(self.environments[place])
                used.begin(entry, wake=self._wake)
            except BrokenProcessPool:  # it died while it had nothing to do
                used.kill()
                self._lanes[place] = used = Lane(self.environments[place])
                used.begin(entry, wake=self._wake)

    def _settle(self) -> None:
        """Take what has ended from its worker, and bury the dead."""
        for place, lane in enumerate(self._lanes):
            if lane is None or lane.future is None or lane.entry is None or not lane.future.done():
                continue
            lane.drain()
            entry, future = lane.entry, lane.future
            lane.entry = lane.future = None
            error = future.exception()
            if error is None:
                self._ready.append(outcome_of(entry.ticket, future.result()))
            elif not isinstance(error, BrokenProcessPool):  # the result could not be pickled
                self._ready.append(Failed(ticket=entry.ticket, failure=Failure.of(error)))
            else:
                lane.kill()
                self._lanes[place] = None
                if entry.begun < entry.tries:
                    self._queue.appendleft(entry)
                else:
                    self._ready.append(Lost(ticket=entry.ticket, tries=entry.begun))


def _cores() -> int:
    from joblib import cpu_count

    return int(cpu_count())
