"""A search in experiment trackers: one run for the search, one below it for each trial, fed by events.

`loggers` has the runs; this module says what is logged. A tracker that fails is told once and left out from then on: it
never ends a search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from vlmsel_auto.errors import InputError
from vlmsel_auto.events import (
    Event,
    Notice,
    RankingReady,
    ReportWritten,
    Sink,
    TrialEpoch,
    TrialFinished,
    TrialStarted,
)
from vlmsel_auto.records import Ranking, TrialResult, TrialSpec, TrialState

if TYPE_CHECKING:
    from vlmsel_auto.reporting.loggers import LoggedRun, Loggers  # imports Lightning

Plain: TypeAlias = str | int | float | bool

NAMES: Final = ("tensorboard", "csv", "mlflow", "wandb")
_MOST_RANKED: Final = 20  # places of the ranking that the search's run names; all of them are in the report


def names_of(loggers: Loggers) -> list[str]:
    """Trackers that were given by name.

    Raises:
        InputError: there is none of that name.
    """
    several = [loggers] if isinstance(loggers, str) or not isinstance(loggers, Sequence) else loggers
    names = [one for one in several if isinstance(one, str)]
    for name in names:
        if name not in NAMES:
            raise InputError(f"a logger must be one of {', '.join(NAMES)}, but got {name!r}")
    return names


@contextmanager
def tracked(loggers: Loggers, *, folder: Path, about: Mapping[str, Plain], sink: Sink) -> Iterator[Sink]:
    """A sink that passes every event on to ``sink`` and logs it to the trackers.

    Args:
        loggers: as for `loggers.open_runs`; none: ``sink`` itself is given back.
        folder: where trackers that are given by name keep their files.
        about: hyperparameters of the search's run; its "task" names it.
        sink: hears everything, and of trackers that fail.

    Raises:
        InputError: an unknown name, or a logger whose trials cannot have runs of their own.
        MissingDependency: a tracker's package is not installed.
    """
    if not loggers:
        yield sink
        return
    from vlmsel_auto.reporting.loggers import open_runs

    tracker = TrackerSink(open_runs(loggers, folder=folder, name=str(about.get("task", "search"))), about, sink=sink)
    try:
        yield tracker
    except BaseException:  # also Ctrl+C: trackers show the run as failed, not as one that still runs
        tracker.close(good=False)
        raise
    tracker.close(good=True)


class TrackerSink:
    """Passes every event on, then logs it to every run."""

    def __init__(self, runs: Sequence[LoggedRun], about: Mapping[str, Plain], *, sink: Sink) -> None:
        """Describe each of ``runs`` by ``about``; ``sink`` hears every event."""
        self._sink = sink
        self._searches = [_Search(run=run) for run in runs]
        self._all(lambda each: each.run.describe(about))

    def __call__(self, event: Event, /) -> None:
        """Pass one event on and log it."""
        self._sink(event)
        self._all(lambda each: each.note(event))

    def close(self, *, good: bool) -> None:
        """End every run that is still open."""
        self._all(lambda each: each.close(good=good))
        self._searches.clear()

    def _all(self, action: Callable[[_Search], None]) -> None:
        for each in tuple(self._searches):
            try:
                action(each)
            except Exception as error:  # noqa: BLE001 - whatever a tracker's client raises, the search goes on
                self._searches.remove(each)
                text = f"nothing more is logged to {each.run}: {type(error).__name__}: {error}"
                self._sink(Notice(text=text, level="warning"))


@dataclass(kw_only=True, eq=False)
class _Search:
    """One tracker's run of the search, and its trials' runs that are open."""

    run: LoggedRun
    ranking: Ranking | None = None
    trials: dict[int, LoggedRun] = field(default_factory=dict)
    outcome: dict[str, float] = field(default_factory=dict)

    def note(self, event: Event) -> None:
        match event:
            case RankingReady(updated=False):
                self.ranking = event.ranking
                order = event.ranking.order[:_MOST_RANKED]
                self.run.describe({f"predicted/{place:02d}": name for place, name in enumerate(order, start=1)})
            case TrialStarted():
                self.trials[event.number] = self._begin(event.number, event.spec, why=event.why)
            case TrialEpoch():
                known = _finite({"validation": event.validation, "loss": event.loss})
                self.trials[event.number].measure(known, step=event.epoch)
            case TrialFinished():
                self._finish(event)
            case ReportWritten():
                self.run.attach(event.directory)
                self.outcome = _outcome(event)
            case _:
                pass

    def close(self, *, good: bool) -> None:
        for run in self.trials.values():
            run.end(good=False, values={"state": "interrupted"}, metrics={})
        self.run.end(good=good, values={}, metrics=self.outcome)

    def _begin(self, number: int, spec: TrialSpec, *, why: str) -> LoggedRun:
        run = self.run.trial(f"trial-{number:04d}")
        run.describe({**_described(spec, self.ranking), "why": why})
        return run

    def _finish(self, event: TrialFinished) -> None:
        result = event.result
        run = self.trials.pop(result.number, None)
        if run is None:  # an earlier call of the search had finished it
            run = self._begin(result.number, result.spec, why="of an earlier call")
            for epoch, validation in enumerate(result.curve, start=1):
                run.measure(_finite({"validation": validation}), step=epoch)
        good = result.state is not TrialState.FAILED
        values = {"state": result.state.value, "origin": result.origin.value, "reason": result.reason}
        run.end(good=good, values=values, metrics=_reached(result))
        if event.leader is not None and event.leader.validation is not None:
            self.run.measure({"best_validation": event.leader.validation}, step=result.number)


def _described(spec: TrialSpec, ranking: Ranking | None) -> dict[str, Plain]:
    """Hyperparameters of a trial, and what was predicted of its candidate."""
    values: dict[str, Plain] = {"candidate": spec.candidate, "method": spec.method, "epochs": spec.epochs,
                                "fold": spec.fold, "seed": spec.seed, **spec.settings}  # fmt: skip
    lines = () if ranking is None else ranking.ranked
    for place, line in enumerate(lines, start=1):
        if line.candidate == spec.candidate:
            values |= {"predicted_rank": place, "predicted_score": line.score, "p_best": line.p_best}
    return values


def _reached(result: TrialResult) -> dict[str, float]:
    """What a finished trial reached, and its price in seconds."""
    return _finite({
        "final/validation": result.validation,
        "final/test": result.test,
        "final/seconds": result.seconds,
        "final/cost": result.cost,
    })  # fmt: skip


def _outcome(event: ReportWritten) -> dict[str, float]:
    """The best model, and how good the prediction was."""
    models = {"best": event.best, "ensemble": event.ensemble}
    found = {
        f"{name}/{split}": getattr(model, split)
        for name, model in models.items()
        if model is not None
        for split in ("validation", "test")
    }
    figures = ("tau_b", "weighted_tau", "ndcg5", "top1_loss", "top5_loss")
    return _finite(found | {f"agreement/{name}": getattr(event.agreement, name) for name in figures})


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
