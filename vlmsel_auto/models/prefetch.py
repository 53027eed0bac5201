"""The next candidate is downloaded in the background while the present one computes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from vlmsel_auto.events import Sink, discard
from vlmsel_auto.models.download import fetch
from vlmsel_auto.records import Candidate

_END = 0.5  # seconds that a stopped download has to end; one that waits for the network is left to its timeout
_LOOK = 0.1  # seconds; on some systems Ctrl+C is noticed between waits only


@dataclass(kw_only=True, eq=False)
class _Job:
    candidate: Candidate
    thread: threading.Thread
    stop: threading.Event
    error: list[BaseException] = field(default_factory=list)


class Prefetcher:
    """One download ahead of its use, in one daemon thread; a context manager that ends it at once.

    The sink is called from that thread too.
    """

    def __init__(self, *, sink: Sink = discard) -> None:
        """``sink`` takes the progress of all downloads."""
        self._sink = sink
        self._job: _Job | None = None

    def __enter__(self) -> Self:
        """Nothing to open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End a download that is under way; its file stays and can be resumed."""
        self._end()

    def start(self, candidate: Candidate) -> None:
        """Begin to download a candidate; another one that is under way is broken off, and resumed when asked for."""
        if self._job is not None and self._job.candidate == candidate:
            return
        self._end()
        stop, error = threading.Event(), list[BaseException]()

        def run() -> None:
            try:
                fetch(candidate, sink=self._sink, stop=stop)
            except BaseException as caught:  # noqa: BLE001 - told where the candidate is asked for
                error.append(caught)

        thread = threading.Thread(target=run, name=f"download of {candidate.id}", daemon=True)
        self._job = _Job(candidate=candidate, thread=thread, stop=stop, error=error)
        thread.start()

    def fetch(self, candidate: Candidate) -> None:
        """Return when the candidate is in the cache: its download under way is waited for, any other is broken off.

        Raises:
            TrialUnavailable: as `vlmsel_auto.models.download.fetch`, also for what went wrong in the background.
            CandidateError: likewise.
        """
        job = self._job
        if job is None or job.candidate != candidate:
            self._end()
            fetch(candidate, sink=self._sink)
            return
        while job.thread.is_alive():
            job.thread.join(_LOOK)
        self._job = None
        if job.error:
            raise job.error[0]

    def _end(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            job.stop.set()
            job.thread.join(_END)
