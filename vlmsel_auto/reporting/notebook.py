"""Rankings and trials as notebooks show them: HTML tables, and data frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from markupsafe import escape

from vlmsel_auto.errors import MissingDependency
from vlmsel_auto.records import Ranking, TrialResult
from vlmsel_auto.reporting.formatting import clean, duration
from vlmsel_auto.reporting.table import Column, html_table, ranking_columns
from vlmsel_auto.tuning.methods import label_of
from vlmsel_auto.units import percent

if TYPE_CHECKING:
    from pandas import DataFrame

_MOST_ROWS: Final = 30  # of a table that is shown unasked


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
    """One row a candidate, best first: what is predicted of it, and each signal in a column."""
    rows = [
        {name: getattr(line, name) for name in ("candidate", "score", "sd", "p_best", "p_top5")}
        | {"rank_low": line.rank_interval.low, "rank_high": line.rank_interval.high}
        | {"prior": line.prior, "evidence": line.evidence, "basis": line.basis.value}
        | {"screened": line.candidate not in ranking.not_looked}
        | {f"signal_{name}": value for name, value in line.signals.items()}
        for line in ranking.ranked
    ]
    return _frame(rows, index=range(1, len(rows) + 1), name="rank")


def trials_frame(trials: Sequence[TrialResult]) -> DataFrame:
    """One row a trial, by number: what was tried and what came out, and each setting in a column."""
    rows = [
        {"candidate": each.spec.candidate, "method": each.spec.method, "state": each.state.value}
        | {"origin": each.origin.value, "validation": each.validation, "test": each.test, "fold": each.spec.fold}
        | {"epochs": each.epochs_run, "seconds": each.seconds, "cost": each.cost, "reason": each.reason}
        | {f"setting_{name}": value for name, value in each.spec.settings.items()}
        for each in trials
    ]
    return _frame(rows, index=[each.number for each in trials], name="trial")


def _frame(rows: Sequence[dict[str, Any]], *, index: Sequence[int], name: str) -> DataFrame:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingDependency("data frames need pandas: pip install 'vlmsel-auto[notebook]'") from error
    return pd.DataFrame(list(rows), index=pd.Index(list(index), name=name))
