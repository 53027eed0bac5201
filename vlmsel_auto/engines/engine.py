"""What an engine is: jobs go in with what they need, and come out as they finish, whatever became of their workers.

One coordinator owns an engine and calls it from one thread. A job is a frozen record that can be pickled; so is what it
gives back. While it runs it tells the coordinator of its progress, and may be asked to stop early.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Final, Generic, NewType, Protocol, Self, TypeAlias, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

R_co = TypeVar("R_co", covariant=True)
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

TRIES: Final = 3  # a job whose worker dies runs again twice
Ticket = NewType("Ticket", int)  # of one job; later jobs have higher numbers


class Channel(Protocol):
    """A running job's line to the coordinator."""

    def tell(self, item: object) -> None:
        """Hand over something that can be pickled; what one job tells arrives in order, and before its result."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the coordinator asked this job to end early; true soon after it did."""
        ...


class Job(Protocol[R_co]):
    """A piece of work. Can be pickled, and can be run again from the start."""

    def run(self, channel: Channel) -> R_co:
        """Do it."""
        ...


class Shared(Protocol[V_co]):
    """A value that many jobs need. Pickled it is small; a worker fetches the value once."""

    def get(self) -> V_co:
        """The value."""
        ...


@dataclass(frozen=True, slots=True)
class Held(Generic[V]):
    """A value that is shared within this process."""

    value: V

    def get(self) -> V:
        """The value itself."""
        return self.value


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What a job takes while it runs. Engines that place jobs go by it; the others limit threads alone."""

    threads: int | None = None  # of its worker; None: as many as the process has, one where that must be counted
    gpus: float = 0.0  # whole ones, or a share of one
    memory: int = 0  # bytes; 0: not known


ORDINARY: Final = Resources()


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """The exception that ended a job."""

    kind: str  # name of its class
    text: str
    errno: int | None = None  # of an OSError
    filename: str | None = None  # likewise

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """What is known of ``error`` wherever it is read."""
        return cls(
            kind=type(error).__name__,
            text=str(error),
            errno=error.errno if isinstance(error, OSError) else None,
            filename=str(error.filename) if isinstance(error, OSError) and error.filename else None,
        )

    def os_error(self) -> OSError | None:
        """The error of the operating system that it was; None: another."""
        return None if self.errno is None else OSError(self.errno, os.strerror(self.errno), self.filename)

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """The job gave this."""

    ticket: Ticket
    result: object


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The job raised."""

    ticket: Ticket
    failure: Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """Its worker died, as often as the job may be tried."""

    ticket: Ticket


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancelled:
    """The coordinator cancelled it."""

    ticket: Ticket


Finished: TypeAlias = Done | Failed | Lost | Cancelled
Told: TypeAlias = Callable[[object], None]


class Patience:
    """How long to wait on, all told; None: for as long as it takes."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds, at least 0."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())


def ignore(item: object) -> None:
    """Takes what a job tells, and drops it."""


@dataclass(kw_only=True, eq=False)
class Submission:
    """A job from `Engine.submit` until it is given back."""

    ticket: Ticket
    job: Job[object]
    resources: Resources
    told: Told
    tries: int
    pickled: bytes = b""  # the job, where it goes through a pipe
    begun: int = 0  # times
    cancelled: bool = False
    stopping: bool = False  # the coordinator asked it to end early

    def tell(self, item: object) -> None:
        """Hand on what the job tells, unless it was cancelled."""
        if not self.cancelled:
            self.told(item)


class Engine(ABC):
    """Runs jobs. A context manager: at its end workers are gone, and so are the jobs that still ran.

    A job that raises, or whose worker dies, disturbs no other.
    """

    def __init__(self) -> None:
        self._tickets = count(1)
        self._ready: deque[Finished] = deque()  # what `finished` gives next

    @property
    @abstractmethod
    def slots(self) -> int:
        """Jobs of ordinary needs that can run at once now; at least 1. A cluster may grow."""

    @property
    def apart(self) -> bool:
        """Whether there may be workers that do not see this machine's disk."""
        return False

    @abstractmethod
    def share(self, value: V) -> Shared[V]:
        """Make a value ready for all jobs: it travels to a node, or a process, once."""

    def submit(
        self, job: Job[object], *, resources: Resources = ORDINARY, told: Told = ignore, tries: int = TRIES
    ) -> Ticket:
        """Queue a job.

        Args:
            job: to be run.
            resources: what it takes.
            told: called with each item that the job tells, by `finished` in the coordinator's thread; may `stop` it.
            tries: how often the job may be begun while its workers die.
        """
        ticket = Ticket(next(self._tickets))
        self._enqueue(Submission(ticket=ticket, job=job, resources=resources, told=told, tries=tries))
        return ticket

    @abstractmethod
    def _enqueue(self, submission: Submission) -> None:
        """Queue it, or begin it."""

    @abstractmethod
    def finished(self, timeout: float | None = None) -> Finished | None:
        """Wait for the next job to finish; None: ``timeout`` seconds passed before, or there is none.

        Jobs come in the order in which they finish, each once.
        """

    @abstractmethod
    def stop(self, ticket: Ticket) -> None:
        """Ask a running job to end early by itself. Without effect on one that is finished, or only queued."""

    @abstractmethod
    def cancel(self, ticket: Ticket) -> None:
        """End a job at once, with its worker if it runs; it finishes as `Cancelled`, unless it had finished before."""

    @abstractmethod
    def close(self) -> None:
        """End all jobs and workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Returned:
    """What a job returned, on its way from the worker."""

    result: object


@contextmanager
def _limited_threads(count: int | None) -> Iterator[None]:
    """Torch and BLAS use ``count`` threads within the block; None: as before."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def perform(job: Job[object], channel: Channel, *, threads: int | None) -> Returned | Failure:
    """Run a job in this process; what it raises becomes a record, but for the wish to end the process.

    Raises:
        KeyboardInterrupt: asked to end.
    """
    try:
        with _limited_threads(threads):
            return Returned(result=job.run(channel))
    except Exception as error:  # noqa: BLE001 - whatever one job raises, the others go on and the reason is told
        return Failure.of(error)


def outcome_of(ticket: Ticket, given: Returned | Failure) -> Done | Failed:
    """What became of a job that its worker ran to its end."""
    if isinstance(given, Failure):
        return Failed(ticket=ticket, failure=given)
    return Done(ticket=ticket, result=given.result)
