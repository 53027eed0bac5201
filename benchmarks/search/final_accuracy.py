"""QUESTION: How accurate is what the user gets, against scripts and plain Optuna, after so many seconds?

PAGE: docs/results/accuracy.md
RESULT: benchmarks/results/final-accuracy-far.json, benchmarks/results/final-accuracy-near.json

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 16 --seed 3
    python -m benchmarks.search.final_accuracy TARGETS --records RECORDS --seconds 15,60,300 --seeds 3 --write OUT.json
    python -m benchmarks.search.final_accuracy TARGETS --records RECORDS --far --only aerial_scenes,... --write FAR.json
    python -m benchmarks.search.final_accuracy TARGETS --records RECORDS --quick

Each target is searched as a user would, one call of the command line for each budget and seed, one after the other.
Every run leaves a record, and a run that is on record is not made again, so an interrupted benchmark goes on. Where a
search ended by itself before its budget, its figures stand for the longer budgets too. Targets' own tasks are taken out
of the library. With ``--far`` candidates are those that know little of the target's domain (`fresh_targets`). Rows:

- single: the exported model; ensemble: the exported ensemble, or the single model where none is exported;
- twenty, fifty and long lines: what a user would write (`plain_lines`), cut off at the budget, of which the import of
  torch, open_clip and scikit-learn takes its part (`Imports`); best of scripts: the best of them on test, cut off then;
  best of their towers: of the fifty lines', alone; zero-shot: the best zero-shot classifier by the labelled
  images; best head: the best of all fitted heads on test, in hindsight;
- best tried: the best trial of the search on test, in hindsight;
- plain Optuna (``--rows``): TPE with Hyperband over candidates, methods and settings, one run of the longest budget,
  read at each less the same import (`plain_optuna`);
- hard top 3 (``--rows``): the search among the first three candidates of its own ranking alone.

``--neighbour`` runs a process beside each search that computes without end. The last line is one JSON
object: means by budget, paired differences with their standard errors, overtuning.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.common import command_line, folders, write_json
from benchmarks.search.final_accuracy_table import Row, rows_of, summary
from benchmarks.search.plain_optuna import Point, Run, value_at, work
from benchmarks.tuning.fresh_targets import far_candidates
from benchmarks.tuning.plain_lines import PlainLines, plain_lines
from vlmsel_auto.library.file import save
from vlmsel_auto.library.places import default_library
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.records import Candidate
from vlmsel_auto.tasks.task import TaskOptions, load_task

R = TypeVar("R")
FEW = 3  # candidates of the row "hard top 3"
ENDED = 0.9  # of its budget: a search that took less had nothing more to do


@dataclass(frozen=True, kw_only=True)
class Found:
    """One search; accuracies in [0, 1]."""

    single: float
    ensemble: float
    best_tried: float
    tried: int  # candidates with a complete trial
    seconds: float
    calibration_error: float  # of the ensemble, or of the single model
    order: tuple[str, ...]  # the ranking before the first trial
    calibration_floor: float | None = None  # None: of an older record
    median_tried: float | None = None  # likewise; of the trials whose test accuracy is known


@dataclass(frozen=True, kw_only=True)
class Imports:
    """What a script pays before it begins."""

    seconds: float

    @staticmethod
    def timed() -> Imports:
        """The median of three."""
        code, found = "import torch, open_clip, sklearn.linear_model", []
        for _ in range(3):
            begun = time.monotonic()
            subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own
            found.append(time.monotonic() - begun)
        return Imports(seconds=sorted(found)[1])


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What every run of this benchmark needs."""

    records: Path
    threads: int | None  # None: as the product chooses
    neighbour: bool

    def kept(self, kind: type[R], name: str, make: Callable[[], R]) -> R:
        """What is on record as ``name``, or is made now."""
        file = self.records / f"{name}.json"
        if file.is_file():
            return decode(kind, json.loads(file.read_text("utf-8")))
        with neighbour(there=self.neighbour):
            made = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(encode(made), indent=1) + "\n", "utf-8")
        part.replace(file)
        return made


@contextmanager
def neighbour(*, there: bool) -> Iterator[None]:
    """A process that computes without end."""
    if not there:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def search(target: Path, *, seconds: float, seed: int, library: Path, candidates: str, threads: int | None) -> Found:
    """One call of the command line."""
    environment = {**os.environ, "GOMP_SPINCOUNT": "10000"}
    environment.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable, "-m", "vlmsel_auto", "search", str(target), "--time-budget", str(seconds), "--seed",
            str(seed), "--workdir", f"{scratch}/w", "--library", str(library), "--candidates", candidates,
            "--no-learn", "--json", "--quiet",
        ]  # fmt: skip
        begun = time.monotonic()
        ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603 - our own
        spent = time.monotonic() - begun
    answer = json.loads(ran.stdout)
    single = float(answer["best"]["test"])
    mean = answer["ensemble"]
    tested = [float(each["test"]) for each in answer["trials"] if each["test"] is not None]
    on_test = (mean or answer["best"])["on_test"]
    return Found(
        single=single,
        ensemble=single if mean is None else float(mean["test"]),
        best_tried=max(tested),
        median_tried=statistics.median(tested),
        tried=len({each["spec"]["candidate"] for each in answer["trials"] if each["test"] is not None}),
        seconds=spent,
        calibration_error=float(on_test["calibration_error"]),
        calibration_floor=on_test["calibration_floor"],
        order=tuple(str(each["candidate"]) for each in answer["ranking"]["ranked"]),
    )


def baselines(target: Path, *, seed: int, candidates: Sequence[Candidate], limit: float) -> PlainLines:
    """What a user would write."""
    with tempfile.TemporaryDirectory() as scratch:
        views = tuple(dict.fromkeys(each.view for each in candidates))
        task = load_task(target, TaskOptions(seed=seed), views=views, workdir=Path(scratch))
        return plain_lines(task, candidates=candidates, limit=limit)


def optuna(target: Path, *, seconds: float, seed: int, runs: Runs) -> list[Point]:
    """Points of plain Optuna's incumbents."""
    folder = runs.records / "optuna"
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(
        task=target, seed=seed, seconds=seconds, out=folder, threads=runs.threads or torch.get_num_threads(),
    )  # fmt: skip
    if not run.file.exists():
        with neighbour(there=runs.neighbour):
            process = multiprocessing.get_context("spawn").Process(target=work, args=(run,))
            process.start()
            process.join()
    curve = json.loads(run.file.read_text("utf-8"))["curve"]
    return [(float(seconds), float(validation), float(test)) for seconds, validation, test in curve]


def measure(
    target: Path, budgets: Sequence[float], *, seed: int, rows: Sequence[str], far: bool, runs: Runs
) -> list[Row]:
    """All budgets on one target with one seed."""
    name = f"{target.name}.{'far.' if far else ''}{seed}"
    pool = far_candidates(target.name) if far else mini_zoo()
    plain = runs.kept(
        PlainLines, f"{name}.plain", lambda: baselines(target, seed=seed, candidates=pool, limit=max(budgets))
    )
    imports = runs.kept(Imports, "imports", Imports.timed)
    curve = optuna(target, seconds=max(budgets), seed=seed, runs=runs) if "optuna" in rows else None
    shipped = default_library()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "library.safetensors"
        save(shipped.leave_out(name=target.name), library)

        def searched(kind: str, budget: float, candidates: str) -> Found:
            return runs.kept(
                Found, f"{name}.{kind}.{budget:g}s",
                lambda: search(target, seconds=budget, seed=seed, library=library, candidates=candidates,
                               threads=runs.threads),
            )  # fmt: skip

        ours: Found | None = None
        spent = math.inf  # by the shorter budget, as a share of it
        for budget in budgets:
            if ours is None or spent >= ENDED:
                ours = searched("ours", budget, ",".join(each.id for each in pool) if far else "mini-zoo")
                spent = ours.seconds / budget
            hard = searched("hard", budget, ",".join(ours.order[:FEW])) if "hard" in rows else None
            left = budget - imports.seconds
            twenty = plain.twenty.test if plain.twenty.seconds <= left else None
            row = Row(
                target=target.name, seed=seed, budget=budget, seconds=ours.seconds, tried=ours.tried,
                calibration_error=ours.calibration_error,
                calibration_floor=ours.calibration_floor,
                accuracy={
                    name: value
                    for name, value in (
                        ("single", ours.single),
                        ("ensemble", ours.ensemble),
                        ("twenty lines", twenty),
                        ("fifty lines", plain.fifty_after(left)),
                        ("long lines", plain.long_after(left)),
                        ("best of scripts", plain.better_by(left)),
                        ("best of their towers", max(plain.towers, default=None)),
                        ("zero-shot", plain.zero_shot.test),
                        ("plain Optuna", None if curve is None else value_at(curve, left)),
                        ("hard top 3", None if hard is None else hard.single),
                        ("best tried", ours.best_tried),
                        ("median tried", ours.median_tried),
                        ("best head", plain.best_head),
                    )
                    if value is not None
                },
            )  # fmt: skip
            print(row.line(), flush=True)
            found.append(row)
    return found


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, quick="one target, 20 seconds")
    parser.add_argument("targets", type=Path, help="folder of task folders, each with train/ and test/")
    parser.add_argument("--records", type=Path, required=True, help="folder that keeps every run")
    parser.add_argument("--only", default="", help="comma list of targets; default: all")
    parser.add_argument("--seconds", default="15,60", help="comma list of budgets")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", default="", help="comma list of further rows: optuna, hard")
    parser.add_argument("--threads", type=int, help="of a search; default: as the product chooses")
    parser.add_argument("--far", action="store_true", help="candidates that know little of the target's domain")
    parser.add_argument("--neighbour", action="store_true", help="a busy process beside each search")
    args = parser.parse_args()
    targets = folders(args.targets, only=args.only, quick=args.quick)
    budgets = [20.0] if args.quick else sorted(float(each) for each in args.seconds.split(","))
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    runs = Runs(records=args.records, threads=args.threads, neighbour=args.neighbour)
    found: list[Row] = []
    for seed in range(args.first_seed, args.first_seed + (1 if args.quick else args.seeds)):
        for target in targets:
            found += measure(target, budgets, seed=seed, rows=args.rows.split(","), far=args.far, runs=runs)
    record = {"means": summary(found), "rows": rows_of(found)}
    write_json(args.write, record)
    print(json.dumps(record["means"]))


if __name__ == "__main__":
    main()
