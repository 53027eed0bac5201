"""One trial in several processes, a device each, as Lightning's "ddp" strategies train.

Lightning starts such processes by running the user's command once more, which a library must not. Here they are jobs of
an engine, and Lightning is told by a cluster environment, its interface for this, that they run already. This process
is the first of them: it alone reports, measures what is kept, and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment, find_free_network_port

from vlmsel_auto.engines.engine import Channel, Failed, Finished, Job
from vlmsel_auto.engines.local import LocalEngine

_HERE: Final = "here"
_LOOK_SECONDS: Final = 1.0  # between two looks at who has come


class Member(LightningEnvironment):
    """One of the processes of a trial on this machine."""

    def __init__(self, rank: int, *, port: int) -> None:
        super().__init__()
        self._rank = rank
        self._main_port = port
        self.channel: Channel | None = None  # of the job that it is, to say when it is there

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Where the first one listens."""
        return "127.0.0.1"

    def local_rank(self) -> int:
        """Which one it is, from 0."""
        return self._rank

    def node_rank(self) -> int:
        """All are on one machine."""
        return 0


@contextmanager
def grouped(
    count: int, help_of: Callable[[Member], Job[object]], *, member: Member | None = None
) -> Iterator[LightningEnvironment]:
    """The environment for a trainer in this process, while the others train in theirs.

    Args:
        count: of processes, this one included; with one, nothing is started.
        help_of: what another one is to do. Can be pickled.
        member: who this process is, when another one has started it.

    Raises:
        RuntimeError: another one failed, and thereby what this one did.
    """
    if count == 1:
        yield LightningEnvironment()
        return
    if member is not None:
        if member.channel is not None:
            member.channel.tell(_HERE)
        yield member  # its process ends with its job
        return
    port, here = find_free_network_port(), list[object]()
    with LocalEngine(count - 1, threads=torch.get_num_threads()) as engine:
        for rank in range(1, count):
            engine.submit(help_of(Member(rank, port=port)), told=here.append, tries=1)
        while len(here) < count - 1:  # this process would wait half an hour for one that never comes
            ended = engine.finished(timeout=_LOOK_SECONDS)
            if ended is not None:
                raise RuntimeError(_what(ended))
        try:
            yield Member(0, port=port)
        except RuntimeError as error:  # how a lost connection is told; the cause is another one's
            ended = engine.finished(timeout=0.0)
            if ended is None:
                raise
            raise RuntimeError(_what(ended)) from error
        finally:
            _leave()


def _what(ended: Finished) -> str:
    reason = str(ended.failure) if isinstance(ended, Failed) else "it died (out of memory?)"
    return f"another process of the trial failed: {reason}"


def _leave() -> None:
    """Nobody is connected any more, so that the next trial connects anew."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
