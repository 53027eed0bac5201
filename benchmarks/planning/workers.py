"""QUESTION: What are many workers worth?

PAGE: docs/results/workers.md
RESULT: benchmarks/results/workers.json, benchmarks/results/workers-idle.json

Overhead: the same trials on the same core in this process, in one worker process, and in one Ray worker. It is the wall
time of the trials' stage less what the trials themselves took, as a share of that; starting the workers, once a
search, stands beside it.

Speed: a SIMULATION of searches on recorded trials (`workers_replay.py`) in two worlds (`workers_worlds.py`), the same
tasks, runs and luck for every number of workers. ``seconds`` is until a finished trial is within a point of the best
recorded run (the search's end, where none is). ``times faster`` compares the sums over all tasks, with a 95 % interval
by the bootstrap over tasks; ``a task`` is the geometric mean of each task's own factor. Two figures to read that by:
``in order`` is what the workers would have reached that take the one worker's trials in its own order, nothing being
learned from one another's (more than that is luck or a better order); ``at most`` is the one worker's time shared out
evenly, and no less than the shortest run that is within a point takes. ``busy`` is what workers do of the time,
``regret`` that of the trial chosen at the end, in points, and the interval of how much more that is than one worker's.

    python -m benchmarks.planning.workers --tables FOLDER --records replays.jsonl      # an hour
    python -m benchmarks.planning.workers --only speed --quick
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.planning.workers_replay import replay
from benchmarks.planning.workers_worlds import World, quicktune, tuned_truth
from vlmsel_auto.engines.engine import Engine
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.engines.local import LocalEngine
from vlmsel_auto.engines.ray import RayEngine
from vlmsel_auto.models import candidates as catalogue
from vlmsel_auto.models import zoo
from vlmsel_auto.pipeline.workers import WarmJob
from vlmsel_auto.records import Budget, FloatArray, Ranking
from vlmsel_auto.study.study import run_study
from vlmsel_auto.tasks.digits import write_digits
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning.methods import FINETUNE, PROBE

WORKERS = (1, 4, 16, 64)
MEANS = ("reached", "busy", "regret", "trials")
DRAWS = 2_000
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


def overhead(name: str, opened: Callable[[], Engine], *, trials: int) -> Overhead:
    """Run the trials once."""
    members = catalogue.resolve(MEMBERS)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_digits(root / "digits")
        task = load_task(
            root / "digits", TaskOptions(shots=16), views=[one.view for one in members], workdir=root / "work"
        )
        began = time.monotonic()
        with opened() as engine:
            engine.submit(WarmJob())
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


def replays(
    worlds: Callable[[int], Iterator[tuple[str, World]]],
    *,
    name: str,
    tasks: int | None,
    seeds: int,
    records: Path | None,
) -> list[dict[str, Any]]:
    """Simulate every task and seed with each number of workers, but for those on record."""
    lines = [] if records is None or not records.exists() else records.read_text("utf-8").splitlines()
    known = {(row["world"], row["task"], row["seed"], row["workers"]): row for row in map(json.loads, lines)}
    rows = []
    for seed in range(seeds):
        for task, world in islice(worlds(seed), tasks):
            for workers in WORKERS:
                key = (name, task, seed, workers)
                if key not in known:
                    others = WORKERS[1:] if workers == 1 else ()
                    found = replay(copy.deepcopy(world), workers=workers, seed=seed, others=others)
                    row = dict(zip(("world", "task", "seed", "workers"), key, strict=True)) | asdict(found)
                    known[key] = json.loads(json.dumps(row | {"least": world.least}))
                    if records is not None:
                        with records.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps(known[key]) + "\n")
                rows.append(known[key])
    return rows


def speed(rows: Sequence[Mapping[str, Any]], *, name: str) -> list[dict[str, Any]]:
    """Print and return a line for each number of workers; searches that lack one are left out."""
    whole = {(row["task"], row["seed"]) for row in rows if row["workers"] == WORKERS[-1]}
    by = {w: {(row["task"], row["seed"]): row for row in rows if row["workers"] == w} for w in WORKERS}
    tasks = sorted({task for task, _ in whole})
    drawn = np.random.default_rng(0).integers(0, len(tasks), (DRAWS, len(tasks)))

    def of_tasks(workers: int, key: str, queued: int | None = None) -> FloatArray:
        """Means over seeds of a figure, or of what so many others would take in the same order."""
        rows = by[workers]
        values = {at: rows[at][key] if queued is None else rows[at][key][str(queued)] for at in whole}
        return np.array([np.mean([value for (name, _), value in values.items() if name == task]) for task in tasks])

    def interval(values: FloatArray) -> tuple[float, float]:
        low, high = np.quantile(values, [0.025, 0.975]).tolist()
        return round(low, 2), round(high, 2)

    one, least = of_tasks(1, "seconds"), of_tasks(1, "least")
    print(f"\nsimulated, {name}: {len(tasks)} tasks, {len(whole)} searches\n")
    print("| workers | seconds | times faster | a task | in order | at most | within a point | busy % "
          "| regret | more than one worker's | trials |")  # fmt: skip
    print(11 * "|---" + "|")
    lines = []
    for workers in WORKERS:
        took = of_tasks(workers, "seconds")
        order = one if workers == 1 else of_tasks(1, "queue", workers)
        more = of_tasks(workers, "regret") - of_tasks(1, "regret")
        mean = {key: float(of_tasks(workers, key).mean()) for key in MEANS}
        line: dict[str, Any] = {
            "workers": workers,
            "seconds": round(float(took.mean()), 2),
            "times_faster": round(float(one.sum() / took.sum()), 2),
            "interval": interval(one[drawn].sum(1) / took[drawn].sum(1)),
            "a_task": round(float(np.exp(np.log(one / took).mean())), 2),
            "in_order": round(float(one.sum() / order.sum()), 2),
            "at_most": round(float(one.sum() / np.maximum(one / workers, np.minimum(least, one)).sum()), 2),
            "more_regret": interval(more[drawn].mean(1)),
            **{key: round(value, 3) for key, value in mean.items()},
        }
        told = [f"{line['seconds']:,.0f}", f"{line['times_faster']} {list(line['interval'])}"]
        told += [str(line[key]) for key in ("a_task", "in_order", "at_most")]
        told += [f"{mean['reached']:.0%}", f"{100 * mean['busy']:.0f}", f"{mean['regret']:.2f}"]
        told += [str(list(line["more_regret"])), f"{mean['trials']:.0f}"]
        print(f"| {workers} | {' | '.join(told)} |", flush=True)
        lines.append(line)
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("overhead", "speed"))
    parser.add_argument("--trials", type=int, default=10, help="of the overhead")
    parser.add_argument("--tables", type=Path, default=Path(), help="folder of QuickTune's three files; else left out")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tasks", type=int, help="at most so many of each world; default: all")
    parser.add_argument("--records", type=Path, help="JSON lines; replays are recorded there and taken from there")
    parser.add_argument("--quick", action="store_true", help="two tasks, one seed, six trials")
    parser.add_argument("--write", type=Path, help="JSON; parts that were not run stay as they are")
    args = parser.parse_args()
    known = json.loads(args.write.read_text()) if args.write is not None and args.write.exists() else {}
    if args.only != "speed":
        rows = overheads(trials=6 if args.quick else args.trials)
        known["overhead"] = [{**asdict(row), "share": round(row.share, 2)} for row in rows]
    worlds: dict[str, Callable[[int], Iterator[tuple[str, World]]]] = {
        "tuned truth": lambda seed: tuned_truth(seed=seed),
        "quicktune": lambda seed: quicktune(args.tables, seed=seed),
    }
    tasks, seeds = (2, 1) if args.quick else (args.tasks, args.seeds)
    for name, opened in worlds.items() if args.only != "overhead" else ():
        found = replays(opened, name=name, tasks=tasks, seeds=seeds, records=args.records)
        if found:
            known[f"speed, simulated: {name}"] = speed(found, name=name)
    if args.write is not None:
        args.write.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    print(json.dumps(known))


if __name__ == "__main__":
    main()
