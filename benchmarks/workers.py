"""What many workers are worth: an engine's overhead on real trials, and simulated searches with up to 64 of them.

Overhead: the same trials on the same core in this process, in one worker process, and in one Ray worker. It is the wall
time of the trials' stage less what the trials themselves took, as a share of that; starting the workers, once a
search, stands beside it.

Speed: a SIMULATION with recorded accuracies and seconds of 20 models by two methods (`tuned_truth.py`). The planner is
the search's own, with several trials at once (`planning.running`); time is counted, not waited for. One trial in 20
takes three times as long; in one of 20 the worker dies somewhere in the trial, which is begun again 10 seconds later.
``seconds`` is until a finished trial is within a point of the best recorded arm (its end, where none is); ``busy`` what
workers do of that; ``regret`` that of the trial that is chosen at the end, in points.

    python benchmarks/workers.py                          # twenty minutes
    python benchmarks/workers.py --only speed --quick
"""

from __future__ import annotations

import argparse
import heapq
import importlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from choice import RESULTS, ranking_of
from choice_worlds import Accuracies, Arm, recorded

from vlmsel_auto.engines.engine import Channel, Engine
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.engines.local import LocalEngine
from vlmsel_auto.engines.ray import RayEngine
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.models import candidates as catalogue
from vlmsel_auto.models import zoo
from vlmsel_auto.planning.curves import Curve
from vlmsel_auto.planning.history import Left, Tried, expectations
from vlmsel_auto.planning.next_trial import NextTrial, next_trial
from vlmsel_auto.planning.plan import make_plan
from vlmsel_auto.planning.running import Running, imagine
from vlmsel_auto.records import Budget, Ranking, TrialState
from vlmsel_auto.study.study import run_study
from vlmsel_auto.tasks.digits import write_digits
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tuning.methods import FINETUNE, PROBE

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKERS = (1, 4, 16, 64)
IMAGES = 100  # for validation
STRAGGLERS, SLOW = 0.05, 3.0
DEATHS, NOTICED = 0.05, 10.0  # seconds until a dead worker is replaced
LOCAL_LOSS = 0.015  # standard deviation of what other settings lose
MEMBERS = ("EffNet-Mi-64.all-m", "ConvNeXt-Mi-64.all-m", "RN-Mi-64.photo-m", "ViT-Mi-8-64.all-l")


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """One engine on the trials of `overheads`."""

    engine: str
    start: float  # seconds until the first job was done
    trials: float  # seconds that trials took
    wall: float  # seconds of their stage

    @property
    def share(self) -> float:
        """Of the trials' time, in percent."""
        return 100 * (self.wall - self.trials) / self.trials


@dataclass(frozen=True, kw_only=True)
class _First:
    """What a worker does before its first trial: import what trials need."""

    def run(self, channel: Channel) -> None:
        del channel
        for name in ("models.zoo", "study.study", "tuning.finetune", "tuning.probe"):
            importlib.import_module(f"vlmsel_auto.{name}")


def overhead(name: str, opened: Callable[[], Engine], *, trials: int) -> Overhead:
    """Run the trials once."""
    members = catalogue.resolve(MEMBERS)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_digits(root / "digits")
        task = load_task(root / "digits", views=[one.view for one in members], shots=16, workdir=root / "work")
        began = time.monotonic()
        with opened() as engine:
            engine.submit(_First())
            engine.finished()
            ready = time.monotonic()
            outcome = run_study(
                task=task, candidates=members, ranking=Ranking(task="digits", ranked=()), budget=Budget(trials=trials),
                workdir=root / "work", load=partial(zoo.load, device="cpu"), methods=(PROBE.name, FINETUNE.name),
                engine=engine, images_per_trial=600,
            )  # fmt: skip
    return Overhead(
        engine=name, start=ready - began, trials=sum(each.seconds for each in outcome.results), wall=outcome.seconds
    )


def overheads(*, trials: int) -> list[Overhead]:
    """All engines, the same trials."""
    engines: Mapping[str, Callable[[], Engine]] = {
        "in process": InProcess,
        "local": lambda: LocalEngine(1, threads=1),
        "Ray": lambda: RayEngine(cpus=1),
    }
    print("| engine | start s | trials s | stage s | overhead % |\n|---|---|---|---|---|")
    rows = []
    for name, opened in engines.items():
        row = overhead(name, opened, trials=trials)
        print(f"| {name} | {row.start:.1f} | {row.trials:.1f} | {row.wall:.1f} | {row.share:.2f} |", flush=True)
        rows.append(row)
    return rows


@dataclass(frozen=True, kw_only=True)
class Replay:
    """One simulated search."""

    seconds: float  # until a trial was within a point
    reached: bool
    busy: float  # share of the workers' time until then
    regret: float  # points
    trials: int


def replay(world: Accuracies, ranking: Ranking, *, workers: int, seed: int) -> Replay:
    """Search with so many workers until the planner has nothing more that is worth its time."""
    members = catalogue.mini_zoo()
    plan = make_plan(
        ranking, candidates=members, methods=(PROBE, FINETUNE), top_k=5, audits=0, seed=seed, validation_images=IMAGES
    )
    rng = np.random.default_rng(seed)
    history: list[Tried] = []
    running: dict[int, tuple[NextTrial, Tried, float]] = {}  # trial, what it will show, truth
    ends: list[tuple[float, int]] = []
    now, number, best = 0.0, 0, 0.0
    reached: float | None = None
    spans: list[tuple[float, float]] = []
    truths: dict[int, float] = {}
    while True:
        while len(running) < workers:
            begun = [Running(number=at, trial=step) for at, (step, *_) in running.items()]
            step = next_trial(plan, imagine(plan, history, begun), left=Left(workers=workers))
            if step is None:
                break
            arm: Arm = (step.candidate, step.method)
            known = [*history, *(each for _, each, _ in running.values())]
            first = all((trial.candidate, trial.method) != arm for trial in known)
            drawn = world.trial(arm, lost=0.0 if first else abs(rng.normal(0, LOCAL_LOSS)))
            seconds = world.seconds[arm] * (SLOW if rng.random() < STRAGGLERS else 1.0)
            if rng.random() < DEATHS:
                seconds += rng.random() * seconds + NOTICED
            shown = Tried(
                candidate=step.candidate,
                method=step.method,
                origin=step.origin,
                state=TrialState.COMPLETE,
                validation=drawn.metric,
                seconds=seconds,
                point={"learning_rate": rng.random()} if step.point is None else step.point,
                number=number,
                curve=Curve(values=(drawn.metric,), epochs=1) if step.method == FINETUNE.name else None,
            )
            running[number] = (step, shown, drawn.truth)
            heapq.heappush(ends, (now + seconds, number))
            spans.append((now, now + seconds))
            number += 1
        if not running:
            break
        now, ended = heapq.heappop(ends)
        _, shown, truth = running.pop(ended)
        history.append(shown)
        truths[ended] = truth
        best = max(best, truth)
        if reached is None and world.best - best <= 0.01:
            reached = now
    expected = expectations(plan, history)
    chosen = max(history, key=lambda trial: expected.get(trial.number, -1.0)).number
    until = now if reached is None else reached
    worked = sum(max(0.0, min(end, until) - begin) for begin, end in spans)
    return Replay(
        seconds=until, reached=reached is not None, busy=worked / (workers * until),
        regret=100 * (world.best - truths[chosen]), trials=len(history),
    )  # fmt: skip


def speed(*, tasks: int | None, seeds: int) -> list[dict[str, float]]:
    """Simulate every task and seed with each number of workers."""
    library = load(default_library_path())
    table = RESULTS / "tuned-truth.csv"
    arms = {name: each for name in library.task_names if (each := recorded(table, name))}
    names = list(arms)[:tasks]
    rankings = {name: ranking_of(library, library.task_names.index(name), reverse=False) for name in names}
    print(f"\nsimulated: {len(names)} tasks, {seeds} seeds\n")
    print("| workers | seconds | times faster | within a point | busy % | regret | trials |")
    print(7 * "|---" + "|")
    rows: list[dict[str, float]] = []
    for workers in WORKERS:
        found = [
            replay(Accuracies(arms=arms[name], images=IMAGES, seed=seed), rankings[name], workers=workers, seed=seed)
            for name in names
            for seed in range(seeds)
        ]
        mean = float(np.mean([each.seconds for each in found]))
        row = {
            "workers": workers,
            "seconds": round(mean, 2),
            "times_faster": round(rows[0]["seconds"] / mean, 2) if rows else 1.0,
            "within_a_point": round(float(np.mean([each.reached for each in found])), 3),
            "busy": round(float(np.mean([each.busy for each in found])), 3),
            "regret": round(float(np.mean([each.regret for each in found])), 3),
            "trials": round(float(np.mean([each.trials for each in found])), 1),
        }
        print(
            f"| {workers} | {mean:.1f} | {row['times_faster']:.1f} | {row['within_a_point']:.0%} | "
            f"{100 * row['busy']:.0f} | {row['regret']:.2f} | {row['trials']:.0f} |",
            flush=True,
        )
        rows.append(row)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("overhead", "speed"))
    parser.add_argument("--trials", type=int, default=10, help="of the overhead")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="four tasks, one seed, six trials")
    parser.add_argument("--write", type=Path, help="JSON; parts that were not run stay as they are")
    args = parser.parse_args()
    known = json.loads(args.write.read_text()) if args.write is not None and args.write.exists() else {}
    if args.only != "speed":
        rows = overheads(trials=6 if args.quick else args.trials)
        known["overhead"] = [{**asdict(row), "share": round(row.share, 2)} for row in rows]
    if args.only != "overhead":
        known["speed, simulated"] = speed(tasks=4 if args.quick else None, seeds=1 if args.quick else args.seeds)
    if args.write is not None:
        args.write.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    print(json.dumps(known))


if __name__ == "__main__":
    main()
