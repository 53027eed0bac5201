"""The live screen: a board that events change, and a pure function from board and window size to a rich renderable."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vlmsel_auto.events import (
    Event,
    Notice,
    RankingReady,
    StageFinished,
    StageProgress,
    StageStarted,
    TrialEpoch,
    TrialFinished,
    TrialStarted,
)
from vlmsel_auto.records import Budget, Ranking, TrialResult, TrialSpec
from vlmsel_auto.reporting.formatting import (
    clean,
    clock,
    duration,
    number,
    percent,
    plural,
    shorten,
    sparkline,
)
from vlmsel_auto.tuning.methods import label_of

_WIDE = 76  # columns from which every column of the tables is shown
_MIDDLE = 56
_NARROW = 32  # below, tables and bars give way to single lines
_STATE_STYLES = {"complete": "", "pruned": "dim", "failed": "red"}
_SAMPLES = 30  # progress marks that the remaining time is estimated from


@dataclass(kw_only=True, slots=True)
class StageLine:
    """One running stage. Times are seconds of the board's clock."""

    total: int | None
    started: float
    text: str = ""
    done: int = 0
    marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_SAMPLES))


@dataclass(kw_only=True, slots=True)
class RunningTrial:
    """One running trial and its validation metric by epoch."""

    spec: TrialSpec
    why: str
    started: float
    epochs: int
    curve: list[float] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Board:
    """Everything that the screen shows. ``started`` is the clock when the run began."""

    started: float
    budget: Budget = field(default_factory=Budget)
    stages: dict[str, StageLine] = field(default_factory=dict)
    finished_stages: list[str] = field(default_factory=list)
    ranking: Ranking | None = None
    updated: bool = False
    running: dict[int, RunningTrial] = field(default_factory=dict)
    trials: list[TrialResult] = field(default_factory=list)
    best: TrialResult | None = None  # the trial that would be chosen now


def update(board: Board, event: Event, now: float) -> None:
    """Note ``event``, which came at ``now``, on the board."""
    match event:
        case StageStarted():
            board.stages[event.stage] = StageLine(total=event.total, started=now, text=event.text)
        case StageProgress():
            line = board.stages.setdefault(event.stage, StageLine(total=None, started=now))
            line.done, line.text = event.done, event.text or line.text
            line.marks.append((now, event.done))
        case StageFinished():
            board.stages.pop(event.stage, None)
            board.finished_stages.append(event.stage)
        case RankingReady():
            board.ranking, board.updated = event.ranking, event.updated
        case TrialStarted():
            trial = RunningTrial(spec=event.spec, why=event.why, started=now, epochs=event.spec.epochs)
            board.running[event.number] = trial
        case TrialEpoch():
            if event.number in board.running:
                board.running[event.number].curve.append(event.validation)
                board.running[event.number].epochs = event.epochs
        case TrialFinished():
            _finish(board, event, now)
        case Notice():
            pass  # told above the screen, where it stays
        case _:
            assert_never(event)


def _finish(board: Board, event: TrialFinished, now: float) -> None:
    board.running.pop(event.result.number, None)
    board.trials = [trial for trial in board.trials if trial.number != event.result.number] + [event.result]
    board.best = event.leader
    stage = board.stages.get("trials")
    if stage is not None and not event.resumed:
        stage.done = max(stage.done, len(board.trials))
        stage.marks.append((now, stage.done))


def remaining(line: StageLine, now: float) -> float | None:
    """Seconds that the stage will still take at its recent pace; None while unknown."""
    if line.total is None or not line.marks:
        return None
    first_time, first_done = line.marks[0] if len(line.marks) > 1 else (line.started, 0)
    gained, spent = line.done - first_done, now - first_time
    return None if gained <= 0 else max(0.0, (line.total - line.done) * spent / gained)


def render(board: Board, *, now: float, width: int, height: int) -> RenderableType:
    """Draw the board into at most ``height`` rows of ``width`` columns, dropping what matters least."""
    fixed: list[RenderableType] = [_stage(name, line, now, width) for name, line in board.stages.items()]
    running = [_running(trial_number, trial, now, width) for trial_number, trial in board.running.items()]
    budget = [bar for bar in (_budget(board, now, width),) if bar is not None]
    spare = height - len(fixed) - len(budget) - 2 * len(running)
    ranked = len(board.ranking.ranked) if board.ranking else 0
    rows_ranking, rows_trials = _share(spare, ranked=ranked, finished=len(board.trials))
    parts: list[RenderableType] = []
    if board.ranking is not None and rows_ranking and width >= _NARROW:
        parts.append(_ranking_table(board, board.ranking, rows_ranking, width))
    if rows_trials and width >= _NARROW:
        parts.append(_trials_table(board, rows_trials, width))
    parts += [line for pair in running for line in pair][: max(0, height - len(fixed) - len(budget))]
    bars = [*fixed[: max(0, height - len(budget))], *budget][:height]
    return Group(*parts, *bars)


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


def _table(width: int) -> Table:
    padding = (0, 2, 0, 0) if width >= _MIDDLE else (0, 1, 0, 0)
    return Table(box=None, pad_edge=False, padding=padding, header_style="dim")


def _line(text: str, *, style: str = "") -> Text:
    """One row, cut where the window ends."""
    return Text(clean(text), style=style, no_wrap=True, overflow="ellipsis")


def _name_column(table: Table, width: int, *, others: int) -> int:
    """Add the column of names and tell how long one may be."""
    most = max(12, width - others)
    table.add_column("candidate", no_wrap=True, overflow="ellipsis", max_width=most)
    return most


def _ranking_table(board: Board, ranking: Ranking, rows: int, width: int) -> Group:
    tuned = {trial.spec.candidate: trial for trial in board.trials if trial.state == "complete"}
    count = plural(len(ranking.ranked), "candidate")
    title = _line(f"Ranking of {count}{', updated by trials' if board.updated else ''}", style="bold")
    table = _table(width)
    table.add_column("", justify="right", no_wrap=True)
    most = _name_column(table, width, others=50 if width >= _WIDE else 30)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("P(best)", justify="right", no_wrap=True)
    if width >= _MIDDLE:
        table.add_column("P(top 5)", justify="right", no_wrap=True)
    if width >= _WIDE:
        table.add_column("basis", no_wrap=True, overflow="ellipsis")
    for place, line in enumerate(ranking.ranked[:rows], start=1):
        cells = [str(place), shorten(clean(line.candidate), most), number(line.score), percent(line.p_best, digits=0)]
        cells += [percent(line.p_top5, digits=0)] if width >= _MIDDLE else []
        cells += [line.basis] if width >= _WIDE else []
        table.add_row(*(Text(cell) for cell in cells), style="" if line.candidate not in tuned else "cyan")
    return Group(title, table)


def chosen_rows(trials: Sequence[TrialResult], best: TrialResult | None, rows: int) -> list[TrialResult]:
    """The latest trials, oldest first, with the best among them even when it is older."""
    latest = list(trials[-rows:]) if rows > 0 else []
    if best is not None and latest and best not in latest:
        latest[0] = best
    return latest


def _trials_table(board: Board, rows: int, width: int) -> Group:
    best = board.best
    failed = sum(trial.state == "failed" for trial in board.trials)
    pruned = sum(trial.state == "pruned" for trial in board.trials)
    asides = "".join(f", {count} {word}" for count, word in ((pruned, "pruned"), (failed, "failed")) if count)
    title = _line(f"{plural(len(board.trials), 'trial')} finished{asides}", style="bold")
    table = _table(width)
    table.add_column("", justify="right", no_wrap=True)
    most = _name_column(table, width, others=56 if width >= _WIDE else 42 if width >= _MIDDLE else 28)
    if width >= _MIDDLE:
        table.add_column("method", no_wrap=True)
    table.add_column("validation", justify="right", no_wrap=True)
    if width >= _WIDE:
        table.add_column("test", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for trial in chosen_rows(board.trials, best, rows):
        is_best = best is not None and trial.number == best.number
        cells = [f"★ {trial.number}" if is_best else str(trial.number)]
        cells += [shorten(clean(trial.spec.candidate), most)]
        cells += [label_of(trial.spec.method)] if width >= _MIDDLE else []
        cells += [percent(trial.validation) if trial.state == "complete" else trial.state]
        cells += [percent(trial.test)] if width >= _WIDE else []
        cells += [duration(trial.seconds)]
        style = (
            "bold green" if is_best else "red" if trial.state == "failed" else "dim" if trial.state == "pruned" else ""
        )
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return Group(title, table)


def _running(trial_number: int, trial: RunningTrial, now: float, width: int) -> list[RenderableType]:
    why = f", {trial.why}" if trial.why else ""
    head = f"▶ trial {trial_number}  {trial.spec.candidate}  {label_of(trial.spec.method)}{why}"
    done = len(trial.curve)
    spark = sparkline(trial.curve, width=max(4, min(30, width - 48)))
    latest = f" {percent(trial.curve[-1])}, best {percent(max(trial.curve))}" if trial.curve else " first epoch"
    tail = f"  epoch {done}/{trial.epochs}  {spark}{latest}  {duration(now - trial.started)}"
    return [_line(head, style="bold"), _line(tail)]


def _bar_line(label: str, done: float, total: float | None, tail: str, width: int) -> RenderableType:
    if width < _NARROW:
        return _line(f"{label} {tail}")
    line = Table.grid(padding=(0, 1))
    line.add_column(width=9, no_wrap=True, overflow="ellipsis")
    bar_width = max(6, min(30, width - 50))
    line.add_column(width=bar_width)
    line.add_column(no_wrap=True, overflow="ellipsis", max_width=max(10, width - bar_width - 12))
    pulse = total is None or total <= 0
    bar = ProgressBar(total=None if pulse else total, completed=done, width=bar_width, pulse=pulse)
    line.add_row(Text(label, style="bold"), bar, Text(tail))
    return line


def _stage(name: str, line: StageLine, now: float, width: int) -> RenderableType:
    left = remaining(line, now)
    count = f"{line.done:,}" if line.total is None else f"{line.done:,}/{line.total:,}"
    time_text = clock(now - line.started) if left is None else f"{clock(now - line.started)}, {clock(left)} left"
    text = f"  {clean(line.text)}" if line.text else ""
    return _bar_line(name, line.done, line.total, f"{count}  {time_text}{text}", width)


def _budget(board: Board, now: float, width: int) -> RenderableType | None:
    spent = now - board.started
    finished = len(board.trials)
    limit = board.budget
    shares = []
    if limit.seconds:
        shares.append((spent / limit.seconds, f"{duration(spent)} of {duration(limit.seconds)}"))
    if limit.trials:
        shares.append((finished / limit.trials, f"{finished} of {plural(limit.trials, 'trial')}"))
    if not shares:
        return Text(
            f"{duration(spent)} so far; Ctrl+C ends with a report", style="dim", no_wrap=True, overflow="ellipsis"
        )
    most = max(share for share, _ in shares)
    return _bar_line("budget", min(most, 1.0), 1.0, ", ".join(text for _, text in shares), width)
