"""Workers of a Ray cluster: this machine's processors started as one, or a cluster that is there.

A job is a Ray task with the resources that it declares, so that Ray finds a node where it fits. Values that are shared
lie in Ray's object store, once a node. Progress goes through an actor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Generic, cast

from vlmsel_auto.engines.engine import (
    Cancelled,
    Engine,
    Failed,
    Failure,
    Finished,
    Job,
    Lost,
    Patience,
    Returned,
    Submission,
    Ticket,
    V,
    outcome_of,
    perform,
)
from vlmsel_auto.errors import InputError, MissingDependency
from vlmsel_auto.process import handlers_kept, older_objects_left_alone

_CLUSTERS: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # on Linux too it decides which addresses Ray listens on
HERE: Final = "local"  # Ray's own word for a cluster that is started on this machine
_CLOSING_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 20.0  # that the mailbox waits for news before it says that there are none


@dataclass(frozen=True, slots=True)
class _Stored(Generic[V]):
    """A value in Ray's object store."""

    reference: Any  # ray.ObjectRef; Ray ships no usable types

    def get(self) -> V:
        """Fetch once a process: arrays are read where they lie in the node's store."""
        return cast("V", _fetch(self.reference))


@lru_cache(maxsize=4)  # a trial asks for runner, images and files of a model, which may be large
def _fetch(reference: Any) -> object:
    import ray

    return ray.get(reference)


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
class _MailboxChannel:
    mailbox: Any  # actor handle
    ticket: Ticket
    stopping: bool = False

    def tell(self, item: object) -> None:
        import ray

        with suppress(ray.exceptions.RayActorError):  # it is being made anew; the result comes another way
            self.stopping = bool(ray.get(self.mailbox.tell.remote(self.ticket, item)))


def _work(job: Job[object], mailbox: Any, ticket: Ticket, threads: int, folder: str) -> Returned | Failure:
    """The task of a worker; relative paths mean what they mean to the coordinator, whose ``folder`` this is."""
    with suppress(OSError):  # there is none here: a job says itself what it misses
        os.chdir(folder)
    with older_objects_left_alone():
        return perform(job, _MailboxChannel(mailbox, ticket), threads=threads)


def _open_mailbox() -> Any:
    """Beside the coordinator, so that no other node takes it along when it goes."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor: Any = ray.remote(_Mailbox)
    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=True)
    return actor.options(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=1000, scheduling_strategy=here
    ).remote()


class RayEngine(Engine):
    """Jobs on a Ray cluster.

    A Ray that this process has already connected to is used as it is, and left so.

    Args:
        address: `HERE` starts Ray on this machine, reachable from it alone; "auto" joins the cluster that this
            machine belongs to, HOST:PORT another.
        cpus: of this machine, where Ray is started; None: all.
        gpus: an ordinary job takes a GPU, not a CPU.

    Raises:
        MissingDependency: Ray is not installed.
        InputError: there is no such cluster, or Ray did not start here.
        KeyboardInterrupt: asked to end, by SIGTERM too.
    """

    def __init__(self, address: str = HERE, *, cpus: int | None = None, gpus: bool = False) -> None:
        super().__init__()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        if address == HERE:
            os.environ.setdefault(_CLUSTERS, "0")  # Ray listens on loopback alone; read when it is imported
        try:
            import ray
        except ImportError as error:
            raise MissingDependency(
                "Ray is needed for workers on a cluster: pip install 'vlmsel-auto[ray]', but got no module ray"
            ) from error
        self._ray: Final = ray
        self._mine = not ray.is_initialized()
        self._gpus = gpus
        self._folder = os.getcwd()  # noqa: PTH109 - as a text
        if self._mine:
            try:
                with handlers_kept():  # Ray would end this process at SIGTERM wherever it is
                    _connect(address, cpus=cpus)
            except SystemExit as error:  # by that handler
                raise KeyboardInterrupt from error
            except Exception as error:  # where its own processes are too slow to start Ray raises nothing narrower
                what = "Ray did not start on this machine: end other work or use local workers"
                if address != HERE:
                    what = "no Ray cluster answers: start one (ray start --head) or leave the address out"
                raise InputError(f"{what}, but got {address!r}: {error}") from error
        self._mailbox = _open_mailbox()
        self._task: Any = ray.remote(_work)
        self._running: dict[Any, Submission] = {}  # by object reference
        self._take = self._mailbox.take.remote()

    @property
    def slots(self) -> int:
        """Ordinary jobs that all nodes together can run now."""
        kind = "GPU" if self._gpus else "CPU"
        return max(1, sum(int(node["Resources"].get(kind, 0)) for node in self._nodes()))

    @property
    def apart(self) -> bool:
        """Whether there are nodes that may not see this machine's disk."""
        return any(node["NodeManagerHostname"] != socket.gethostname() for node in self._nodes())

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def share(self, value: V) -> _Stored[V]:
        """Put a value into the object store; a node gets it when its first job asks for it."""
        return _Stored(self._ray.put(value))

    def _enqueue(self, submission: Submission) -> None:
        submission.begun += 1
        needs, threads = submission.resources, submission.resources.threads or 1
        largest = max((int(node["Resources"].get("memory", 0)) for node in self._nodes()), default=0)
        task = self._task.options(
            num_cpus=threads,
            num_gpus=needs.gpus,
            memory=min(needs.memory, largest) or None,  # one that fits nowhere has the largest node to itself
            max_retries=0,  # this engine counts the tries itself
        )
        try:
            reference = task.remote(submission.job, self._mailbox, submission.ticket, threads, self._folder)
        except TypeError as error:  # how Ray names what cannot be pickled
            self._ready.append(Failed(ticket=submission.ticket, failure=Failure.of(error)))
        else:
            self._running[reference] = submission

    def finished(self, timeout: float | None = None) -> Finished | None:
        """See `Engine`."""
        patience = Patience(timeout)
        while not self._ready:
            if not self._running:
                return None
            ready, _ = self._ray.wait([*self._running, self._take], num_returns=1, timeout=patience.left())
            if not ready:
                return None
            if ready[0] != self._take:
                with suppress(self._ray.exceptions.RayActorError):
                    self._ray.get(self._mailbox.flush.remote())
            self._hand_on()
            if ready[0] in self._running:
                self._settle(ready[0])
        return self._ready.popleft()

    def _hand_on(self) -> None:
        """Pass on what jobs have told."""
        try:
            items = self._ray.get(self._take)
        except self._ray.exceptions.RayActorError:  # it is being made anew
            items = []
        self._take = self._mailbox.take.remote()
        running = {each.ticket: each for each in self._running.values()}
        for ticket, item in items:
            if ticket in running:
                running[ticket].tell(item)

    def _settle(self, reference: Any) -> None:
        submission = self._running.pop(reference)
        errors = self._ray.exceptions
        if submission.cancelled:
            self._ready.append(Cancelled(ticket=submission.ticket))
            return
        try:
            self._ready.append(outcome_of(submission.ticket, self._ray.get(reference)))
        except errors.RayTaskError as error:  # the job or its result could not be pickled
            self._ready.append(Failed(ticket=submission.ticket, failure=Failure.of(error.cause or error)))
        except errors.RayError:  # the worker or its node died, was killed for memory, or lost the result
            if submission.begun < submission.tries:
                self._enqueue(submission)
            else:
                self._ready.append(Lost(ticket=submission.ticket))

    def stop(self, ticket: Ticket) -> None:
        """See `Engine`."""
        self._mailbox.stop.remote(ticket)

    def cancel(self, ticket: Ticket) -> None:
        """See `Engine`."""
        for reference, submission in self._running.items():
            if submission.ticket == ticket and not self._ray.wait([reference], timeout=0)[0]:
                submission.cancelled = True
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """End what runs; a Ray that this engine started is shut down."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._ready.clear()
        waiting = [self._mailbox.flush.remote(), self._take]
        self._ray.wait(waiting, num_returns=2, timeout=_CLOSING_SECONDS)  # else Ray prints that they were in vain
        self._ray.kill(self._mailbox)
        if self._mine:
            self._ray.shutdown()


def _connect(address: str, *, cpus: int | None) -> None:
    import ray

    if address == HERE:
        ray.init(
            address=HERE, num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )  # fmt: skip
    else:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
