"""What a notebook shows: rankings and trials as HTML and as data frames, and the screen of a running search."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from markupsafe import escape
from rich.console import Console
from rich.text import Text

from vlmsel_auto.errors import MissingDependency
from vlmsel_auto.events import Event, ReportWritten, StageFinished
from vlmsel_auto.records import Budget, Ranking, TrialResult
from vlmsel_auto.reporting.board import Board, update
from vlmsel_auto.reporting.formatting import clean, duration
from vlmsel_auto.reporting.live_screen import render
from vlmsel_auto.reporting.progress import kept_line
from vlmsel_auto.reporting.table import Column, html_table, ranking_columns
from vlmsel_auto.tuning.methods import label_of
from vlmsel_auto.units import percent

if TYPE_CHECKING:
    from pandas import DataFrame

_MOST_ROWS: Final = 30  # of a table that is shown unasked
_COLUMNS: Final = 100  # of the screen
_ROWS: Final = 30
_EVERY: Final = 0.5  # seconds between two pictures of the screen
_LINES: Final = 6  # the latest notices, above the screen
_PRE: Final = '<pre style="line-height:1.2;margin:0">{code}</pre>'


def ranking_html(ranking: Ranking) -> str:
    """A ranking as a table, with its notes below."""
    hidden = len(ranking.ranked) - _MOST_ROWS
    more = [f"... and {hidden} more"] if hidden > 0 else []
    failed = [f"not ranked: {name}: {reason}" for name, reason in ranking.failures.items()]
    return html_table(ranking_columns(ranking, top=_MOST_ROWS)) + _notes([*more, *failed, *ranking.notes])


def trials_html(trials: Sequence[TrialResult], *, notes: Sequence[str]) -> str:
    """Trials as a table, with notes above it."""
    columns = [
        Column("#", [str(trial.number) for trial in trials], right=True),
        Column("candidate", [trial.spec.candidate for trial in trials]),
        Column("method", [label_of(trial.spec.method) for trial in trials]),
        Column("state", [trial.state for trial in trials]),
        Column("validation", [percent(trial.validation) for trial in trials], right=True),
        Column("test", [percent(trial.test) for trial in trials], right=True),
        Column("time", [duration(trial.seconds) for trial in trials], right=True),
    ]
    return _notes(notes) + html_table(columns)


def _notes(lines: Sequence[str]) -> str:
    return "".join(f"<div>{escape(clean(line))}</div>" for line in lines)


def ranking_frame(ranking: Ranking) -> DataFrame:
    """One row a candidate, best first: everything that is predicted of it, and each signal in a column.

    Raises:
        MissingDependency: pandas is not installed.
    """
    rows = [
        {
            "candidate": line.candidate,
            "score": line.score,
            "sd": line.sd,
            "p_best": line.p_best,
            "p_top5": line.p_top5,
            "rank_low": line.rank_interval.low,
            "rank_high": line.rank_interval.high,
            "prior": line.prior,
            "evidence": line.evidence,
            "basis": line.basis.value,
            "screened": line.candidate not in ranking.not_looked,
            **{f"signal_{name}": value for name, value in line.signals.items()},
        }
        for line in ranking.ranked
    ]
    return _frame(rows, index=range(1, len(rows) + 1), name="rank")


def trials_frame(trials: Sequence[TrialResult]) -> DataFrame:
    """One row a trial, by number: what was tried and what came out, and each setting in a column.

    Raises:
        MissingDependency: pandas is not installed.
    """
    rows = [
        {
            "candidate": trial.spec.candidate,
            "method": trial.spec.method,
            "state": trial.state.value,
            "origin": trial.origin.value,
            "validation": trial.validation,
            "test": trial.test,
            "fold": trial.spec.fold,
            "epochs": trial.epochs_run,
            "seconds": trial.seconds,
            "cost": trial.cost,
            "reason": trial.reason,
            **{f"setting_{name}": value for name, value in trial.spec.settings.items()},
        }
        for trial in trials
    ]
    return _frame(rows, index=[trial.number for trial in trials], name="trial")


def _frame(rows: Sequence[dict[str, Any]], *, index: Sequence[int], name: str) -> DataFrame:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingDependency(
            "data frames need pandas; install it with: pip install 'vlmsel-auto[notebook]'"
        ) from error
    return pd.DataFrame(list(rows), index=pd.Index(list(index), name=name))


class NotebookSink:
    """The live screen in one output of a notebook, drawn anew every half second. Safe from any thread."""

    def __init__(self, *, budget: Budget | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """Show an empty output; ``budget`` gives the budget bar its end.

        Raises:
            MissingDependency: this is no notebook: IPython is not installed.
        """
        try:
            from IPython.display import HTML, display
        except ImportError as error:
            raise MissingDependency(
                "a notebook's screen needs IPython; install it with: pip install 'vlmsel-auto[notebook]'"
            ) from error
        self._html: Any = HTML  # IPython types only a part
        self._output = display(HTML(""), display_id=True)
        self._now = now
        self._drawn = now()
        self._lines: deque[Text] = deque(maxlen=_LINES)
        self._board = Board(started=now(), budget=budget or Budget())
        self._lock = threading.Lock()

    def __call__(self, event: Event, /) -> None:
        """Note the event, and draw where it is time or something ended."""
        with contextlib.suppress(Exception), self._lock:  # a kernel that went away must not end the search
            now = self._now()
            update(self._board, event, now)
            line = kept_line(event)
            if line is not None:
                self._lines.append(line)
            if now - self._drawn >= _EVERY or isinstance(event, (StageFinished, ReportWritten)):
                self._drawn = now
                self._output.update(self._html(self._picture(now)))

    def _picture(self, now: float) -> str:
        console = Console(record=True, file=io.StringIO(), width=_COLUMNS, force_terminal=True, force_jupyter=False)
        for line in self._lines:
            console.print(line)
        console.print(render(self._board, now=now, width=_COLUMNS, height=_ROWS))
        return console.export_html(inline_styles=True, code_format=_PRE)
