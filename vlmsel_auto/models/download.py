"""Downloading what candidates need from the hub: how much it is, and the download with progress.

`vlmsel_auto.models.zoo.load` begins with `fetch`, so a load is the same whether the files were in the cache or not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import partial
from types import TracebackType
from typing import cast

from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.events import DownloadProgress, Sink, discard
from vlmsel_auto.models import hub
from vlmsel_auto.models.hub import RemoteFile
from vlmsel_auto.models.hubfiles import HubFile, check_packages
from vlmsel_auto.models.sources.table import source_of
from vlmsel_auto.records import Candidate

_EVERY = 0.1  # seconds between two events of a download
_PASSES = 4  # a configuration names other files, and a repository that moves on has all under another revision
_AT_ONCE = 8  # questions to the hub
_END_SECONDS = 0.5  # that a stopped download has to end; one that waits for the network is left to its timeout
_POLL_SECONDS = 0.1  # on some systems Ctrl+C is noticed between waits only
_PLAN_SECONDS = 15.0  # for questions to the hub before a plan is made without the answers


def is_cached(candidate: Candidate) -> bool:
    """Whether everything that loading the candidate needs is on this disk; asks no network."""
    try:
        return not _missing(candidate)
    except (CandidateError, TrialUnavailable):
        return False


def sizes(candidates: Iterable[Candidate], *, ask: bool = True, seconds: float = _PLAN_SECONDS) -> dict[str, int]:
    """Bytes that each candidate still downloads, by id: one question for each missing file, several at once.

    Candidates whose size the hub does not tell are left out.

    Args:
        candidates: from `vlmsel_auto.models.candidates`.
        ask: False: nobody is asked, and only who lies whole in the cache is known. Whether there is a hub says
            `vlmsel_auto.models.hub.is_reachable`; without one each question takes its timeout.
        seconds: after which no other question is begun.
    """
    wanted: dict[str, list[HubFile]] = {}
    for candidate in candidates:
        with suppress(CandidateError, TrialUnavailable):
            wanted[candidate.id] = _missing(candidate)
    missing = list(dict.fromkeys(file for each in wanted.values() for file in each))
    told = _ask(missing, seconds=seconds) if ask else {}
    found = {name: [told.get(file) for file in needs] for name, needs in wanted.items()}
    return {name: sum(each or 0 for each in needs) for name, needs in found.items() if None not in needs}


def _ask(files: Sequence[HubFile], *, seconds: float) -> dict[HubFile, int | None]:
    """Bytes still to come of each file; None: the hub did not tell, or not in time."""
    late = threading.Event()
    clock = threading.Timer(seconds, late.set)
    clock.daemon = True
    clock.start()
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        return dict(zip(files, pool.map(partial(_remaining, stop=late), files), strict=True))
    finally:
        clock.cancel()
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl+C does not wait for the other questions


def fetch(candidate: Candidate, *, sink: Sink = discard, stop: threading.Event | None = None) -> None:
    """Download all that loading the candidate reads from the hub; what is in the cache costs no question.

    Args:
        candidate: from `vlmsel_auto.models.candidates`.
        sink: takes a `DownloadProgress` ten times a second at most.
        stop: once set, the download ends within its next bytes; another call goes on with the rest.

    Raises:
        TrialUnavailable: the one reason why it cannot be had: the hub (unreachable, refuses, has no such file), the
            connection (too slow, broken off, damaged), the disk (no room, no rights), a package that its tokenizer
            needs, or ``stop``.
        CandidateError: the configuration is not in open_clip's format, or points out of its repository.
    """
    halt = threading.Event() if stop is None else stop
    for _ in range(_PASSES):
        check_packages(source_of(candidate).facts(candidate).text_cfg, candidate=candidate.id)
        if not _missing(candidate):
            return
        _download(candidate, sink=sink, stop=halt)
    raise TrialUnavailable(
        f"The repository changes faster than it can be downloaded, try again later, but got {candidate.id!r}"
    )


class _Download(threading.Thread):
    """A candidate's files on their way."""

    def __init__(self, candidate: Candidate, *, sink: Sink) -> None:
        super().__init__(name=f"download of {candidate.id}", daemon=True)
        self.candidate = candidate
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._sink = sink
        self.start()

    def run(self) -> None:
        """Bring them."""
        try:
            fetch(self.candidate, sink=self._sink, stop=self.stop)
        except BaseException as caught:  # noqa: BLE001 - told where the candidate is asked for
            self.error = caught


class Prefetcher(AbstractContextManager["Prefetcher"]):
    """One download ahead of its use, in one daemon thread; a context manager that ends it at once.

    The sink is called from that thread too.
    """

    def __init__(self, *, sink: Sink = discard) -> None:
        """``sink`` takes the progress of all downloads."""
        self._sink = sink
        self._job: _Download | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End a download that is under way; its file stays and can be resumed."""
        self._end()

    def start(self, candidate: Candidate) -> None:
        """Begin to download a candidate; another one that is under way is broken off, and resumed when asked for."""
        if self._job is None or self._job.candidate != candidate:
            self._end()
            self._job = _Download(candidate, sink=self._sink)

    def fetch(self, candidate: Candidate) -> None:
        """Return when the candidate is in the cache: its download under way is waited for, any other is broken off.

        Raises:
            TrialUnavailable: as `fetch` at module level, also for what went wrong in the background.
            CandidateError: likewise.
        """
        self.start(candidate)
        job = cast("_Download", self._job)
        while job.is_alive():
            job.join(_POLL_SECONDS)
        self._job = None
        if job.error is not None:
            raise job.error

    def _end(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            job.stop.set()
            job.join(_END_SECONDS)


def _missing(candidate: Candidate) -> list[HubFile]:
    return [file for file in source_of(candidate).files(candidate) if not file.optional and hub.cached(file) is None]


def _remaining(file: HubFile, *, stop: threading.Event) -> int | None:
    if stop.is_set():
        return None
    try:
        found = hub.find(file)
    except TrialUnavailable:
        return None
    return 0 if found is None else found.remaining


def _download(candidate: Candidate, *, sink: Sink, stop: threading.Event) -> None:
    asked = [file for file in source_of(candidate).files(candidate) if hub.cached(file) is None]
    found = [each for each in (hub.find(file) for file in asked) if each is not None]
    meter = _Meter(candidate.id, found, sink=sink)
    hub.check_space(sum(each.remaining or 0 for each in found), what=repr(candidate.id))
    try:
        for each in found:
            hub.download(each, arrived=partial(meter.note, each), stop=stop)
    finally:
        meter.end()


class _Meter:
    """Adds up the bytes of a candidate's files and tells them, not too often."""

    def __init__(self, candidate: str, files: Sequence[RemoteFile], *, sink: Sink) -> None:
        self._candidate = candidate
        self._sink = sink
        self._started = self._told = time.monotonic()
        self._have = _on_disk(files)
        self._before = sum(self._have.values())
        self._total = None if any(each.size is None for each in files) else sum(each.size or 0 for each in files)
        self._tell()

    def note(self, file: RemoteFile, count: int) -> None:
        """``count`` bytes of a file are on disk."""
        self._have[file] = count
        if time.monotonic() - self._told >= _EVERY:
            self._told = time.monotonic()
            self._tell()

    def end(self) -> None:
        """Nothing more comes; what was damaged is on the disk no more."""
        self._have |= _on_disk([each for each in self._have if each.size is not None])
        self._tell(ended=True)

    def _tell(self, *, ended: bool = False) -> None:
        done, seconds = sum(self._have.values()), time.monotonic() - self._started
        fresh = done - self._before
        rate = fresh / seconds if fresh > 0 and seconds > 0 else None
        self._sink(DownloadProgress(candidate=self._candidate, done=done, total=self._total, rate=rate, ended=ended))


def _on_disk(files: Iterable[RemoteFile]) -> dict[RemoteFile, int]:
    return {each: (each.size or 0) - (each.remaining or 0) for each in files}
