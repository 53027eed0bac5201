"""The live screen: a pure function from board and window size to a rich renderable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vlmsel_auto.events import DownloadProgress
from vlmsel_auto.records import Ranking, TrialResult, TrialState
from vlmsel_auto.reporting.board import (
    Board,
    StageLine,
    TrialLine,
    budget_remaining,
    is_starting,
    leading_text,
    remaining,
    trial_remaining,
)
from vlmsel_auto.reporting.formatting import clean, clock, download_text, duration, number, plural, shorten, sparkline
from vlmsel_auto.reporting.table import Column, table
from vlmsel_auto.tuning.methods import label_of
from vlmsel_auto.units import percent

_WIDE = 76  # columns from which every column of the tables is shown
_MIDDLE = 56
_NARROW = 32  # below, tables and bars give way to single lines
_STATE_STYLES = {TrialState.COMPLETE: "", TrialState.PRUNED: "dim", TrialState.FAILED: "red"}


def render(board: Board, *, now: float, width: int, height: int) -> RenderableType:
    """Draw the board into at most ``height`` rows of ``width`` columns, dropping what matters least."""
    fixed: list[RenderableType] = [_stage(name, line, now, width) for name, line in board.stages.items()]
    fixed += [_download(event, width) for event in board.downloads.values()]
    if is_starting(board):
        fixed.append(_line("getting ready", style="dim"))
    leading = leading_text(board)
    if leading:
        fixed.append(_line(f"leading   {leading}", style="green"))
    running = [_running(trial_number, trial, now, width) for trial_number, trial in board.running.items()]
    spare = height - len(fixed) - 1 - 2 * len(running)
    ranked = len(board.ranking.ranked) if board.ranking else 0
    rows_ranking, rows_trials = _share(spare, ranked=ranked, finished=len(board.trials))
    parts: list[RenderableType] = []
    if board.ranking is not None and rows_ranking and width >= _NARROW:
        parts.append(_ranking_table(board, board.ranking, rows_ranking, width))
    if rows_trials and width >= _NARROW:
        parts.append(_trials_table(board, rows_trials, width))
    parts += [line for pair in running for line in pair][: max(0, height - len(fixed) - 1)]
    return Group(*parts, *fixed[: max(0, height - 1)], _budget(board, now, width))


def _share(spare: int, *, ranked: int, finished: int) -> tuple[int, int]:
    """Rows of candidates and of trials that fit into ``spare`` rows; a table also needs a title and a head."""
    head = 2
    if not finished:
        return (min(ranked, max(0, spare - head)) if spare > head else 0), 0
    if spare <= head:
        return 0, 0
    if not ranked or spare < 2 * (head + 2):
        return 0, min(finished, spare - head)
    rows = spare - 2 * head
    for_trials = min(finished, max(rows // 2, rows - ranked))
    return min(ranked, rows - for_trials), for_trials


def _line(text: str, *, style: str = "") -> Text:
    """One row, cut where the window ends."""
    return Text(clean(text), style=style, no_wrap=True, overflow="ellipsis")


def _ranking_table(board: Board, ranking: Ranking, rows: int, width: int) -> Group:
    tuned = {trial.spec.candidate for trial in board.trials if trial.state == "complete"}
    count = plural(len(ranking.ranked), "candidate")
    title = _line(f"Ranking of {count}{', updated by trials' if board.updated else ''}", style="bold")
    lines = ranking.ranked[:rows]
    most = max(12, width - (50 if width >= _WIDE else 30))
    columns = [
        Column("", [str(place) for place in range(1, len(lines) + 1)], right=True),
        Column("candidate", [shorten(line.candidate, most) for line in lines]),
        Column("score", [number(line.score) for line in lines], right=True),
        Column("P(best)", [percent(line.p_best, digits=0) for line in lines], right=True),
        Column("P(top 5)", [percent(line.p_top5, digits=0) for line in lines], right=True, least=_MIDDLE),
        Column("basis", [line.basis for line in lines], least=_WIDE),
    ]
    styles = ["cyan" if line.candidate in tuned else "" for line in lines]
    return Group(title, table(columns, width=width, styles=styles, gap=_gap(width)))


def chosen_rows(trials: Sequence[TrialResult], best: TrialResult | None, rows: int) -> list[TrialResult]:
    """The latest trials, oldest first, with the best among them even when it is older."""
    latest = list(trials[-rows:]) if rows > 0 else []
    if best is not None and latest and best not in latest:
        latest[0] = best
    return latest


def _trials_table(board: Board, rows: int, width: int) -> Group:
    counts = Counter(trial.state for trial in board.trials)
    asides = "".join(f", {counts[state]} {state}" for state in (TrialState.PRUNED, TrialState.FAILED) if counts[state])
    title = _line(f"{plural(len(board.trials), 'trial')} finished{asides}", style="bold")
    best = None if board.best is None else board.best.number
    most = max(12, width - (56 if width >= _WIDE else 42 if width >= _MIDDLE else 28))
    trials = chosen_rows(board.trials, board.best, rows)
    columns = [
        Column("", [f"★ {each.number}" if each.number == best else str(each.number) for each in trials], right=True),
        Column("candidate", [shorten(each.spec.candidate, most) for each in trials]),
        Column("method", [label_of(each.spec.method) for each in trials], least=_MIDDLE),
        Column("validation", [percent(t.validation) if t.state == "complete" else t.state for t in trials], right=True),
        Column("test", [percent(each.test) for each in trials], right=True, least=_WIDE),
        Column("time", [duration(each.seconds) for each in trials], right=True),
    ]
    styles = ["bold green" if each.number == best else _STATE_STYLES[each.state] for each in trials]
    return Group(title, table(columns, width=width, styles=styles, gap=_gap(width)))


def _gap(width: int) -> int:
    return 2 if width >= _MIDDLE else 1


def _running(trial_number: int, trial: TrialLine, now: float, width: int) -> list[RenderableType]:
    why = f", {trial.why}" if trial.why else ""
    head = f"▶ trial {trial_number}  {trial.spec.candidate}  {label_of(trial.spec.method)}{why}"
    left = trial_remaining(trial, now)
    spent = duration(now - trial.started) + ("" if left is None else f", about {duration(left)} left")
    if not trial.epochs:
        return [_line(head, style="bold"), _line(f"  {spent}")]
    spark = sparkline(trial.curve, width=max(4, min(30, width - 60)))
    latest = f"{spark} {percent(trial.curve[-1])}, best {percent(max(trial.curve))}" if trial.curve else "first epoch"
    return [_line(head, style="bold"), _line(f"  epoch {len(trial.curve)}/{trial.epochs}  {latest}  {spent}")]


def _bar_line(label: str, done: float, total: float | None, tail: str, width: int) -> RenderableType:
    if width < _NARROW:
        return _line(f"{label} {tail}")
    line = Table.grid(padding=(0, 1))
    bar_width = max(6, min(30, width - 50))
    line.add_column(width=9, no_wrap=True)
    line.add_column(width=bar_width)
    line.add_column(no_wrap=True, max_width=max(10, width - bar_width - 12))
    bar = ProgressBar(total=total or None, completed=done, width=bar_width, pulse=not total)
    line.add_row(Text(label, style="bold"), bar, Text(tail))
    return line


def _stage(name: str, line: StageLine, now: float, width: int) -> RenderableType:
    left = remaining(line, now)
    count = f"{line.done:,}" if line.total is None else f"{line.done:,}/{line.total:,}"
    time_text = clock(now - line.started) if left is None else f"{clock(now - line.started)}, {clock(left)} left"
    text = f"  {clean(line.text)}" if line.text else ""
    if name == "trials" and line.total is None:  # the budget's bar says how far they are
        return _line(f"{name:<9} {line.done:,} finished in {time_text}{text}")
    return _bar_line(name, line.done, line.total, f"{count}  {time_text}{text}", width)


def _download(event: DownloadProgress, width: int) -> RenderableType:
    return _bar_line("download", event.done, event.total, f"{download_text(event)}  {clean(event.candidate)}", width)


def _budget(board: Board, now: float, width: int) -> RenderableType:
    spent, finished, limit = now - board.started, len(board.trials), board.budget
    shares = []
    if limit.seconds:
        left = budget_remaining(board, now)
        shares.append((spent / limit.seconds, f"{duration(spent)} of {duration(limit.seconds)}, {duration(left)} left"))
    if limit.trials:
        shares.append((finished / limit.trials, f"{finished} of {plural(limit.trials, 'trial')}"))
    if not shares:
        tunes = board.trials or board.running  # other commands end without a report
        return _line(f"{duration(spent)} so far{'; Ctrl+C ends with a report' if tunes else ''}", style="dim")
    most = max(share for share, _ in shares)
    return _bar_line("budget", min(most, 1.0), 1.0, ", ".join(text for _, text in shares), width)
