"""So many processes of this machine, each a `Worker`."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections import deque
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Pipe, wait
from pathlib import Path
from typing import Final, Generic, cast

import cloudpickle  # type: ignore[import-untyped]  # it ships no types
from loky.backend import resource_tracker  # type: ignore[import-untyped]  # likewise

from vlmsel_auto.engines.engine import (
    Cancelled,
    Engine,
    Failed,
    Failure,
    Finished,
    Lost,
    Patience,
    Submission,
    Ticket,
    V,
    outcome_of,
)
from vlmsel_auto.engines.worker import Worker

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
        super().__init__()
        self._slots = workers
        self.threads = threads or max(1, _cores() // workers)
        self._workers: list[Worker | None] = [None] * workers
        self.environments: list[dict[str, str]] = [
            dict.fromkeys(_THREADS, str(self.threads))
            | ({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {})
            for place in range(workers)
        ]
        self._queue: deque[Submission] = deque()
        self._awake, self._wake = Pipe(duplex=False)
        self._folder = Path(tempfile.mkdtemp(prefix="vlmsel-"))
        resource_tracker.register(str(self._folder), "folder")  # a process that removes it when this one is killed

    @property
    def slots(self) -> int:
        """Workers."""
        return self._slots

    def share(self, value: V) -> _Filed[V]:
        """Pickle the value into a file that each worker reads once."""
        path = self._folder / secrets.token_hex(8)
        path.write_bytes(cloudpickle.dumps(value))
        return _Filed(str(path))

    def _enqueue(self, submission: Submission) -> None:
        try:
            submission.pickled = cloudpickle.dumps(submission.job)
        except Exception as error:  # noqa: BLE001 - pickling calls the job's own code; it fails alone
            self._ready.append(Failed(ticket=submission.ticket, failure=Failure.of(error)))
        else:
            self._queue.append(submission)
            self._fill()

    def finished(self, timeout: float | None = None) -> Finished | None:
        """See `Engine`."""
        patience = Patience(timeout)
        while True:
            self._settle()
            self._fill()
            if self._ready:
                return self._ready.popleft()
            busy = self._busy()
            heard = wait([*(worker.pipe for worker in busy), self._awake], patience.left()) if busy else []
            if not heard:
                return None
            if self._awake in heard:
                self._awake.recv_bytes()
            for worker in busy:
                worker.drain()

    def stop(self, ticket: Ticket) -> None:
        """See `Engine`."""
        for worker in self._busy():
            if worker.submission is not None and worker.submission.ticket == ticket:
                worker.stop(ticket)

    def cancel(self, ticket: Ticket) -> None:
        """See `Engine`."""
        for submission in [each for each in self._queue if each.ticket == ticket]:
            self._queue.remove(submission)
            self._ready.append(Cancelled(ticket=ticket))
        self._settle()
        for place, worker in enumerate(self._workers):
            if worker is not None and worker.submission is not None and worker.submission.ticket == ticket:
                worker.submission.cancelled = True
                self._workers[place] = None
                worker.kill()
                self._ready.append(Cancelled(ticket=ticket))

    def close(self) -> None:
        """See `Engine`."""
        self._queue.clear()
        self._ready.clear()
        for place, worker in enumerate(self._workers):
            if worker is not None:
                worker.kill()
            self._workers[place] = None
        self._wake.close()
        self._awake.close()
        if self._folder.exists():
            shutil.rmtree(self._folder, ignore_errors=True)
            resource_tracker.unregister(str(self._folder), "folder")

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker is not None and worker.submission is not None]

    def _fill(self) -> None:
        """Give what is queued to workers that have nothing to do."""
        for place, worker in enumerate(self._workers):
            if not self._queue:
                return
            if worker is not None and worker.submission is not None:
                continue
            submission = self._queue.popleft()
            threads = submission.resources.threads or self.threads
            try:
                self._workers[place] = used = worker or Worker(self.environments[place])
                used.begin(submission, threads=threads, wake=self._wake)
            except BrokenProcessPool:  # it died while it had nothing to do
                used.kill()
                self._workers[place] = used = Worker(self.environments[place])
                used.begin(submission, threads=threads, wake=self._wake)

    def _settle(self) -> None:
        """Take what has ended from its worker, and bury the dead."""
        for place, worker in enumerate(self._workers):
            if worker is None or worker.future is None or worker.submission is None or not worker.future.done():
                continue
            worker.drain()
            submission, future = worker.submission, worker.future
            worker.submission = worker.future = None
            error = future.exception()
            if error is None:
                self._ready.append(outcome_of(submission.ticket, future.result()))
            elif not isinstance(error, BrokenProcessPool):  # the result could not be pickled
                self._ready.append(Failed(ticket=submission.ticket, failure=Failure.of(error)))
            else:
                worker.kill()
                self._workers[place] = None
                if submission.begun < submission.tries:
                    self._queue.appendleft(submission)
                else:
                    self._ready.append(Lost(ticket=submission.ticket))


def _cores() -> int:
    from joblib import cpu_count

    return int(cpu_count())
