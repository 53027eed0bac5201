"""Processes of this machine, by loky: each worker is an executor of one process, so that its death costs one job.

Each worker has a pipe: progress comes up, and the wish to stop goes down. A worker whose pipe is closed ends itself, so
that none outlives a coordinator that was killed.
"""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Final, Generic, cast

import cloudpickle  # type: ignore[import-untyped]  # it ships no types
from loky.backend import get_context  # type: ignore[import-untyped]  # likewise
from loky.process_executor import ProcessPoolExecutor  # type: ignore[import-untyped]

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
    Returned,
    Ticket,
    Told,
    V,
    ignore,
    outcome_of,
    perform,
)

_ENVIRONMENT: Final = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"}  # bytes: models come and go, which is no leak
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


@dataclass(eq=False)
class _Link:
    """A worker's end of its pipe."""

    pipe: Connection
    asked: int = 0  # ticket of the job that should stop
    lock: threading.Lock = field(default_factory=threading.Lock)

    def listen(self) -> None:
        """Take orders until the coordinator is gone, and then end this process."""
        with suppress(EOFError, OSError):
            while True:
                self.asked = int(self.pipe.recv())
        os._exit(1)


@dataclass(frozen=True, slots=True)
class _WorkerChannel:
    link: _Link
    ticket: Ticket

    def tell(self, item: object) -> None:
        with self.link.lock, suppress(OSError):  # without a coordinator the process is about to end
            self.link.pipe.send_bytes(cloudpickle.dumps((self.ticket, item)))

    @property
    def stopping(self) -> bool:
        return self.link.asked == self.ticket


_links: list[_Link] = []  # of this process, when it is a worker


def _begin(pipe: Connection) -> None:
    """The start of a worker's life. Ctrl+C is the coordinator's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = _Link(pipe)
    _links.append(link)
    threading.Thread(target=link.listen, daemon=True).start()


def _work(ticket: Ticket, pickled: bytes, threads: int | None) -> Returned | Failure:
    try:
        job = cloudpickle.loads(pickled)  # from this engine's own coordinator
    except Exception as error:  # noqa: BLE001 - a job that cannot be read fails alone
        return Failure.of(error)
    return perform(job, _WorkerChannel(_links[-1], ticket), threads=threads)


@dataclass(kw_only=True, eq=False)
class _Entry:
    """A job that is queued or runs."""

    ticket: Ticket
    pickled: bytes
    threads: int | None
    told: Told
    tries: int  # left
    begun: int = 0
    cancelled: bool = False


class _Lane:
    """One worker, which is begun with its first job and anew after its death."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        context = get_context("loky")
        self.pipe, self._far = context.Pipe()
        self._executor = ProcessPoolExecutor(
            1, context=context, initializer=_begin, initargs=(self._far,), env={**_ENVIRONMENT, **environment}
        )
        self.entry: _Entry | None = None
        self.future: Future[Returned | Failure] | None = None

    def begin(self, entry: _Entry, *, wake: Connection) -> None:
        """Run a job; ``wake`` gets a byte when it ends."""

        def done(_: object) -> None:
            with suppress(OSError):  # the engine was closed
                wake.send_bytes(b".")

        entry.begun += 1
        self.entry = entry
        self.future = self._executor.submit(_work, entry.ticket, entry.pickled, entry.threads)
        self.future.add_done_callback(done)

    def drain(self) -> None:
        """Hand on what the job has told."""
        with suppress(EOFError, OSError):
            while self.pipe.poll():
                ticket, item = cloudpickle.loads(self.pipe.recv_bytes())
                if self.entry is not None and self.entry.ticket == ticket and not self.entry.cancelled:
                    self.entry.told(item)

    def kill(self) -> None:
        self._executor.shutdown(wait=True, kill_workers=True)
        self.pipe.close()
        self._far.close()


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
        self._lanes: list[_Lane | None] = [None] * workers
        self._environments: list[dict[str, str]] = [
            dict.fromkeys(_THREADS, str(self.threads))
            | ({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {})
            for place in range(workers)
        ]
        self._queue: deque[_Entry] = deque()
        self._ready: deque[Finished] = deque()
        self._awake, self._wake = Pipe(duplex=False)
        self._folder = tempfile.TemporaryDirectory(prefix="vlmsel-engine-")
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
        path = Path(self._folder.name) / secrets.token_hex(8)
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
        self._queue.append(
            _Entry(ticket=ticket, pickled=pickled, threads=resources.threads or self.threads, told=told, tries=tries)
        )
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
                with suppress(OSError):  # the worker has just died
                    lane.pipe.send(ticket)

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
        self._folder.cleanup()

    def _busy(self) -> list[_Lane]:
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
                self._lanes[place] = used = lane or _Lane(self._environments[place])
                used.begin(entry, wake=self._wake)
            except BrokenProcessPool:  # it died while it had nothing to do
                used.kill()
                self._lanes[place] = used = _Lane(self._environments[place])
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
