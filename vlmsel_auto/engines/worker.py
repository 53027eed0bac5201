"""One worker process of this machine, an executor of loky with a single process, so that its death costs one job.

Each worker has a pipe: progress comes up, and the wish to stop goes down. A worker whose pipe is closed ends itself, so
that none outlives a coordinator that was killed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

import cloudpickle  # type: ignore[import-untyped]  # it ships no types
from loky.backend import get_context  # type: ignore[import-untyped]  # likewise
from loky.process_executor import ProcessPoolExecutor  # type: ignore[import-untyped]

from vlmsel_auto.engines.engine import Failure, Returned, Submission, Ticket, perform
from vlmsel_auto.process import collections_paused, older_objects_left_alone

_ENVIRONMENT: Final = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"}  # bytes: models come and go, which is no leak


@dataclass(eq=False)
class _Link:
    """A worker's end of its pipe."""

    pipe: Connection
    asked: int = 0  # ticket of the job that should stop
    lock: threading.Lock = field(default_factory=threading.Lock)

    def listen(self) -> None:
        """Take the coordinator's wishes until it is gone, and then end this process."""
        with suppress(EOFError, OSError):
            while True:
                self.asked = int(self.pipe.recv())
        os._exit(1)


@dataclass(frozen=True, slots=True)
class _PipeChannel:
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


def _work(ticket: Ticket, pickled: bytes, threads: int) -> Returned | Failure:
    try:
        with collections_paused():  # the first job imports all that it needs
            job = cloudpickle.loads(pickled)  # from this engine's own coordinator
    except Exception as error:  # noqa: BLE001 - a job that cannot be read fails alone
        return Failure.of(error)
    with older_objects_left_alone():
        return perform(job, _PipeChannel(_links[-1], ticket), threads=threads)


class Worker:
    """One process, which is begun with its first job and anew after its death."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        context = get_context("loky")
        self.pipe, self._far = context.Pipe()
        self._executor = ProcessPoolExecutor(
            1, context=context, initializer=_begin, initargs=(self._far,), env={**_ENVIRONMENT, **environment}
        )
        self.submission: Submission | None = None
        self.future: Future[Returned | Failure] | None = None

    def begin(self, submission: Submission, *, threads: int, wake: Connection) -> None:
        """Run a job; ``wake`` gets a byte when it ends."""

        def done(_: object) -> None:
            with suppress(OSError):  # the engine was closed
                wake.send_bytes(b".")

        submission.begun += 1
        self.submission = submission
        self.future = self._executor.submit(_work, submission.ticket, submission.pickled, threads)
        self.future.add_done_callback(done)

    def stop(self, ticket: Ticket) -> None:
        """Ask the job to end early."""
        with suppress(OSError):  # the worker has just died
            self.pipe.send(ticket)

    def drain(self) -> None:
        """Hand on what the job has told."""
        with suppress(EOFError, OSError):
            while self.pipe.poll():
                ticket, item = cloudpickle.loads(self.pipe.recv_bytes())
                if self.submission is not None and self.submission.ticket == ticket:
                    self.submission.tell(item)

    def kill(self) -> None:
        """End it and its job at once."""
        self._executor.shutdown(wait=True, kill_workers=True)
        self.pipe.close()
        self._far.close()
