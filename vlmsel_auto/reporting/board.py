"""What a search is doing, kept up to date by events: the state behind the live screen and the plain lines."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import assert_never

from vlmsel_auto import events
from vlmsel_auto.records import Budget, Ranking, TrialResult, TrialSpec
from vlmsel_auto.reporting.formatting import clean, clock, duration
from vlmsel_auto.tuning.methods import label_of
from vlmsel_auto.units import percent

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
class TrialLine:
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
    finished: int = 0  # stages
    ranking: Ranking | None = None
    updated: bool = False
    downloads: dict[str, events.DownloadProgress] = field(default_factory=dict)
    running: dict[int, TrialLine] = field(default_factory=dict)
    trials: list[TrialResult] = field(default_factory=list)
    best: TrialResult | None = None  # the trial that would be chosen now


def update(board: Board, event: events.Event, now: float) -> None:
    """Note ``event``, which came at ``now``, on the board."""
    match event:
        case events.StageStarted():
            board.stages[event.stage] = StageLine(total=event.total, started=now, text=event.text)
        case events.StageProgress():
            line = board.stages.setdefault(event.stage, StageLine(total=None, started=now))
            line.done, line.text = event.done, event.text or line.text
            line.marks.append((now, event.done))
        case events.StageFinished():
            board.stages.pop(event.stage, None)
            board.finished += 1
        case events.RankingReady():
            board.ranking, board.updated = event.ranking, event.updated
        case events.TrialStarted():
            board.running[event.number] = TrialLine(
                spec=event.spec, why=event.why, started=now, epochs=event.spec.epochs
            )
        case events.TrialEpoch():
            _go_on(board, event)
        case events.TrialFinished():
            _finish(board, event, now)
        case events.DownloadProgress():
            _load(board, event)
        case events.Notice() | events.ReportWritten():
            pass  # told above the screen, or by what follows it
        case _:
            assert_never(event)


def _go_on(board: Board, event: events.TrialEpoch) -> None:
    trial = board.running.get(event.number)
    if trial is not None:
        trial.curve.append(event.validation)
        trial.epochs = event.epochs


def _load(board: Board, event: events.DownloadProgress) -> None:
    if event.ended:
        board.downloads.pop(event.candidate, None)
    else:
        board.downloads[event.candidate] = event


def _finish(board: Board, event: events.TrialFinished, now: float) -> None:
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


def trial_remaining(trial: TrialLine, now: float) -> float | None:
    """Seconds that a running trial will still take at the pace of its epochs; None while unknown."""
    done = len(trial.curve)
    return (trial.epochs - done) * (now - trial.started) / done if 0 < done <= trial.epochs else None


def budget_remaining(board: Board, now: float) -> float | None:
    """Seconds of the budget that are left; None: time is not limited."""
    limit = board.budget.seconds
    return None if limit is None else max(0.0, limit - (now - board.started))


def is_starting(board: Board) -> bool:
    """Whether nothing was done yet: torch is being loaded."""
    return not board.stages and not board.finished and board.ranking is None


def leading_text(board: Board) -> str:
    """The best trial so far and how sure it is; empty before there is one."""
    best = board.best
    if best is None:
        return ""
    text = f"{clean(best.spec.candidate)}, {label_of(best.spec.method)}: validation {percent(best.validation)}"
    lines = () if board.ranking is None else board.ranking.ranked
    chance = next((line.p_best for line in lines if line.candidate == best.spec.candidate), None)
    if chance is None:
        return text
    return f"{text}; the best of {len(lines)} with {percent(chance, digits=0)}"


def status(board: Board, now: float) -> str:
    """What is being done, on whom, for how long, and what leads: one line; empty while nothing is being done."""
    if is_starting(board):
        return f"getting ready for {duration(now - board.started)}"
    doing = [_trial_status(number, trial, now) for number, trial in board.running.items()]
    if not doing:
        doing = [_stage_status(name, line, now) for name, line in board.stages.items()]
    if not doing:
        return ""
    left, leading = budget_remaining(board, now), leading_text(board)
    parts = [*doing, f"{duration(left)} of the budget left" if left is not None else ""]
    return "; ".join(part for part in (*parts, f"leading: {leading}" if leading else "") if part)


def _trial_status(number: int, trial: TrialLine, now: float) -> str:
    left = trial_remaining(trial, now)
    epochs = f", epoch {len(trial.curve)} of {trial.epochs} done" if trial.epochs else ""
    more = "" if left is None else f", about {duration(left)} left"
    what = f"trial {number} of {clean(trial.spec.candidate)} by {label_of(trial.spec.method)}"
    return f"{what} runs for {duration(now - trial.started)}{epochs}{more}"


def _stage_status(name: str, line: StageLine, now: float) -> str:
    left = remaining(line, now)
    count = f", {line.done:,} of {line.total:,}" if line.total else ""
    text = f", {clean(line.text)}" if line.text else ""
    more = "" if left is None else f", about {clock(left)} left"
    return f"{name} for {duration(now - line.started)}{count}{text}{more}"
