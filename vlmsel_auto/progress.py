"""Sinks for people: a live screen on a terminal, plain lines elsewhere. A sink is quick and never raises.

Everything goes to standard error, so that standard output stays free for results.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self, TextIO

from vlmsel_auto.events import (
    Event,
    Notice,
    RankingReady,
    Sink,
    StageProgress,
    TrialEpoch,
)
from vlmsel_auto.wording import clock, describe

__all__ = ["PlainSink", "ProgressSink", "TeeSink"]

_PROGRESS_EVERY = 5.0  # seconds between plain lines of one stage's progress
_EPOCH_EVERY = 1.0  # seconds between plain lines of a trial's epochs; the last epoch is always told


class ProgressSink(Sink, Protocol):
    """A sink that is opened before the work and closed after it, also on an exception."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Leave the terminal as it was found."""
        ...


class PlainSink:
    """One line per event, with the time since the start; fast progress is thinned out. Safe from any thread."""

    def __init__(
        self, *, stream: TextIO | None = None, quiet: bool = False, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Write to ``stream`` (default: standard error). ``quiet``: only warnings and errors."""
        self._stream = stream
        self._quiet = quiet
        self._now = now
        self._start = now()
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Nothing to open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Nothing to close."""

    def __call__(self, event: Event, /) -> None:
        """Write the event's line, unless it follows another of its kind too closely."""
        try:
            with self._lock:
                if self._wanted(event):
                    stream = sys.stderr if self._stream is None else self._stream
                    stream.write(f"[{clock(self._now() - self._start):>7}] {describe(event)}\n")
                    stream.flush()
        except Exception:  # noqa: BLE001 - a full disk or a closed pipe must not end the search
            return

    def _wanted(self, event: Event) -> bool:
        if self._quiet:
            return isinstance(event, Notice) and event.level != "info"
        match event:
            case StageProgress():
                return self._due(f"stage {event.stage}", _PROGRESS_EVERY)
            case TrialEpoch():
                return event.epoch >= event.epochs or self._due(f"trial {event.number}", _EPOCH_EVERY)
            case RankingReady(updated=True):
                return self._due("ranking", _PROGRESS_EVERY)
            case _:
                return True

    def _due(self, key: str, every: float) -> bool:
        now = self._now()
        if now - self._last.get(key, self._start) < every:
            return False
        self._last[key] = now
        return True


class TeeSink:
    """Passes every event on to several sinks; one that fails does not keep it from the others."""

    def __init__(self, *, sinks: Sequence[Sink]) -> None:
        """Pass on to ``sinks``, in this order."""
        self._sinks = tuple(sinks)

    def __call__(self, event: Event, /) -> None:
        """Give the event to every sink."""
        for sink in self._sinks:
            try:
                sink(event)
            except Exception:  # noqa: BLE001, S112 - a broken listener must not end the search
                continue
