"""Which share of the workers' time a search leaves unused, and in which of its stages. A SIMULATION, by real jobs.

Real searches; the clock is processor time (`workers_simulated.py`), as if each worker had a core, whatever else the
machine does. What of the workers' seconds, from the search's begin to its end, no job took is idle; imports in a new
worker (``start``) are not. In a stage, ``first`` is idle before a worker's first job, ``last`` after its last one,
``between`` the rest.

    python benchmarks/workers_idle.py TASK... --workers 2 4 --seconds 60
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from workers_simulated import Simulated, Span

from vlmsel_auto import search
from vlmsel_auto.events import Event, StageFinished, StageStarted
from vlmsel_auto.pipeline import workers as pipeline_workers
from vlmsel_auto.pipeline.workers import WarmJob

OTHER = "other"  # no stage: what lies between them


@dataclass(kw_only=True)
class Stages:
    """A sink that times stages; inner ones are their own."""

    began: float
    open: list[str] = field(default_factory=list)
    since: float = 0.0
    spans: list[tuple[str, float, float]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, StageStarted):
            self._turn()
            self.open.append(event.stage)
        elif isinstance(event, StageFinished) and event.stage in self.open:
            self._turn()
            self.open.remove(event.stage)

    def _turn(self) -> None:
        now = time.monotonic()
        self.spans.append((self.open[-1] if self.open else OTHER, self.since or self.began, now))
        self.since = now

    def end(self) -> list[tuple[str, float, float]]:
        """All of them, up to now, without gaps."""
        self._turn()
        return self.spans


@dataclass(kw_only=True)
class Line:
    """A stage: seconds of all workers, and those of them that were idle."""

    seconds: float = 0.0
    start: float = 0.0
    first: float = 0.0
    between: float = 0.0
    last: float = 0.0

    @property
    def idle(self) -> float:
        """All of them."""
        return self.first + self.between + self.last


@dataclass(frozen=True, kw_only=True)
class Row:
    """A search."""

    task: str
    workers: int
    trials: int
    stages: Mapping[str, Line]


def measure(task: Path, *, workers: int, seconds: float, lends: bool) -> Row:
    """One search."""
    engine = Simulated(workers, lends=lends)
    pipeline_workers.open_engine = lambda **_: engine
    stages = Stages(began=time.monotonic())
    with tempfile.TemporaryDirectory() as folder:
        result = search(
            task, candidates="mini-zoo", budget=seconds, workers=workers, workdir=Path(folder) / "work", learn=False,
            sink=stages,
        )  # fmt: skip
    lines = lines_of(stages.end(), engine.spans, workers=workers)
    return Row(task=task.name, workers=workers, trials=len(result.trials), stages=lines)


def lines_of(spans: Sequence[tuple[str, float, float]], jobs: Sequence[Span], *, workers: int) -> dict[str, Line]:
    """What the workers did in each stage."""
    found: dict[str, Line] = {}
    for name, began, ended in spans:
        line = found.setdefault(name, Line())
        line.seconds += workers * (ended - began)
        for worker in range(workers):
            mine = [each for each in jobs if each.worker == worker and each.began < ended and began < each.ended]
            cut = sorted((max(began, each.began), min(ended, each.ended)) for each in mine)
            line.start += sum(min(ended, each.ended) - max(began, each.began) for each in mine if _is_start(each))
            line.first += (cut[0][0] if cut else ended) - began
            line.last += ended - cut[-1][1] if cut else 0.0
            line.between += sum(max(0.0, after[0] - before[1]) for before, after in pairwise(cut))
    return found


def _is_start(span: Span) -> bool:
    return isinstance(span.job, WarmJob)


def table(row: Row) -> None:
    """Print a line for each stage."""
    whole = sum(each.seconds for each in row.stages.values())
    for name, each in row.stages.items():
        told = f"{each.seconds:.1f} | {each.idle:.1f} | {100 * each.idle / whole:.1f} %"
        parts = f"{each.start:.1f} | {each.first:.1f} | {each.between:.1f} | {each.last:.1f}"
        print(f"| {row.task} | {row.workers} | {name} | {told} | {parts} |")
    lost = sum(each.idle for each in row.stages.values())
    told = f"{whole:.1f} | {lost:.1f} | {100 * lost / whole:.1f} %"
    print(f"| {row.task} | {row.workers} | all, {row.trials} trials | {told} | | | | |", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, nargs="+")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--write", type=Path, help="JSON")
    parser.add_argument("--lends-nothing", action="store_true", help="idle workers keep their threads")
    args = parser.parse_args()
    print("| task | workers | stage | worker seconds | idle | of all | start | first | between | last |")
    print(10 * "|---" + "|")
    rows = []
    for task in args.tasks:
        for workers in args.workers:
            rows.append(measure(task, workers=workers, seconds=args.seconds, lends=not args.lends_nothing))
            table(rows[-1])
            if args.write is not None:
                args.write.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
