"""Sinks for people: a live screen on a terminal or in a notebook, plain lines elsewhere. A sink never raises.

What does not go to a notebook goes to standard error, so that standard output stays free for results.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from vlmsel_auto import events
from vlmsel_auto.errors import MissingDependency
from vlmsel_auto.records import Budget
from vlmsel_auto.reporting.board import Board, status, update
from vlmsel_auto.reporting.formatting import clock, describe
from vlmsel_auto.reporting.live_screen import render

_FRAMES_PER_SECOND = 5
_ROWS_ABOVE = 3  # of the window, left to the latest notices
_PROGRESS_EVERY = 5.0  # seconds between plain lines of one stage's progress
_EPOCH_EVERY = 1.0  # seconds between plain lines of a trial's epochs; the last epoch is always told
_COLUMNS, _ROWS = 100, 30  # of a notebook's screen
_LINES = 6  # the latest notices, above it
_EVERY = 0.5  # seconds between two pictures of it
_SILENCE = 10.0  # seconds without an event after which a plain line says what is being done


class PlainSink:
    """One line per event, with the time since the start; fast progress is thinned out. Safe from any thread.

    Opened with ``with``, it also says what is being done, on whom, how long still and what leads when there was nothing
    to tell for a while.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
        budget: Budget | None = None,
        silence: float = _SILENCE,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write to ``stream`` (default: standard error). ``quiet``: only warnings and errors."""
        self._stream = stream
        self._quiet = quiet
        self._silence = silence
        self._now = now
        self._start = self._written = now()
        self._board = Board(started=self._start, budget=budget or Budget())
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._break_silences, daemon=True)

    def __enter__(self) -> Self:
        """Begin to watch for silences."""
        if not self._quiet:
            self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._closed.set()
        if self._watch.is_alive():
            self._watch.join()

    def __call__(self, event: events.Event, /) -> None:
        """Write the event's line, unless it follows another of its kind too closely."""
        with contextlib.suppress(Exception), self._lock:  # a full disk or a closed pipe must not end the search
            if self._wanted(event):
                line = self._board.stages.get(event.stage) if isinstance(event, events.StageProgress) else None
                self._write(describe(event, total=None if line is None else line.total))
            update(self._board, event, self._now())

    def _write(self, text: str) -> None:
        self._written = self._now()
        stream = sys.stderr if self._stream is None else self._stream
        stream.write(f"[{clock(self._written - self._start):>7}] {text}\n")
        stream.flush()

    def _break_silences(self) -> None:
        while not self._closed.wait(self._silence / 4):
            with contextlib.suppress(Exception), self._lock:
                now = self._now()
                text = status(self._board, now) if now - self._written >= self._silence else ""
                if text:
                    self._write(text)

    def _wanted(self, event: events.Event) -> bool:
        if self._quiet:
            return isinstance(event, events.Notice) and event.level != "info"
        match event:
            case events.StageProgress():
                return self._due(f"stage {event.stage}", _PROGRESS_EVERY)
            case events.DownloadProgress():
                return event.ended or self._due(f"download of {event.candidate}", _PROGRESS_EVERY)
            case events.TrialEpoch():
                return event.epoch >= event.epochs or self._due(f"trial {event.number}", _EPOCH_EVERY)
            case events.RankingReady(updated=True):
                return self._due("ranking", _PROGRESS_EVERY)
            case _:
                return True

    def _due(self, key: str, every: float) -> bool:
        now = self._now()
        if now - self._last.get(key, self._start) < every:
            return False
        self._last[key] = now
        return True


class RichSink:
    """A live screen on a terminal: stages, ranking, running and finished trials, budget.

    Events only change a board and a thread draws it a few times a second, so thousands of events cost next to nothing.
    Notices and finished stages are printed above and stay. The console is our own: Lightning resets rich's global one.
    """

    def __init__(
        self, *, budget: Budget | None = None, console: Console | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Show on ``console`` (default: a new one on standard error); ``budget`` gives the budget bar its end."""
        self._console = Console(stderr=True, highlight=False) if console is None else console
        self._now = now
        self._lock = threading.Lock()
        self._board = Board(started=now(), budget=budget or Budget())
        self._live = Live(
            console=self._console,
            get_renderable=self._frame,
            refresh_per_second=_FRAMES_PER_SECOND,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # prints of libraries go above the screen, pipes stay as they are
            vertical_overflow="crop",
        )

    def _frame(self) -> RenderableType:
        """The board drawn to the window's present size."""
        width, rows = self._console.size
        with self._lock:
            return render(self._board, now=self._now(), width=width, height=max(1, rows - _ROWS_ABOVE))

    def __enter__(self) -> Self:
        """Start the screen."""
        with contextlib.suppress(Exception):  # no screen is no reason to end the search
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Take the screen away, show the cursor again."""
        with contextlib.suppress(Exception):
            self._live.stop()
            self._console.show_cursor()

    def __call__(self, event: events.Event, /) -> None:
        """Note the event; the next frame shows it."""
        with contextlib.suppress(Exception):  # a broken terminal must not end the search
            with self._lock:
                update(self._board, event, self._now())
            line = kept_line(event)
            if line is not None:
                self._console.print(line)


class NotebookSink:
    """The live screen in one output of a notebook, drawn anew every half second. Safe from any thread."""

    def __init__(self, *, budget: Budget | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """Show an empty output; ``budget`` gives the budget bar its end.

        Raises:
            MissingDependency: this is no notebook: IPython is not installed.
        """
        try:
            from IPython.display import display
        except ImportError as error:
            raise MissingDependency("a notebook's screen needs: pip install 'vlmsel-auto[notebook]'") from error
        self._output = display(Text(), display_id=True)
        self._now, self._drawn = now, now()
        self._lines: deque[Text] = deque(maxlen=_LINES)
        self._board = Board(started=now(), budget=budget or Budget())
        self._lock = threading.Lock()

    def __call__(self, event: events.Event, /) -> None:
        """Note the event, and draw where it is time or something ended."""
        with contextlib.suppress(Exception), self._lock:  # a kernel that went away must not end the search
            now, line = self._now(), kept_line(event)
            update(self._board, event, now)
            self._lines.extend([] if line is None else [line])
            if now - self._drawn >= _EVERY or isinstance(event, (events.StageFinished, events.ReportWritten)):
                self._drawn = now
                screen = render(self._board, now=now, width=_COLUMNS, height=_ROWS)
                self._output.update(Padding(Group(*self._lines, screen), 0))  # a group alone is no notebook's output


def kept_line(event: events.Event) -> Text | None:
    """What stays above the screen."""
    match event:
        case events.Notice():
            return Text(describe(event), style={"info": "", "warning": "yellow", "error": "bold red"}[event.level])
        case events.StageFinished():
            return Text.assemble(("✓ ", "green"), describe(event))
        case events.DownloadProgress(ended=True):
            return Text(describe(event))
        case _:
            return None
