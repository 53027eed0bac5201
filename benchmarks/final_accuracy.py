"""The number that counts: test accuracy of what the user gets, against the seconds that it took.

    python benchmarks/fresh_targets.py TASKS --out TARGETS --train 16 --seed 3
    python benchmarks/final_accuracy.py TARGETS --seconds 15,60 --write benchmarks/results/final-accuracy.json
    python benchmarks/final_accuracy.py TARGETS --quick

Each target is searched as a user would, one call of the command line for each budget; on standard output stands a line
a target and budget, then means with their paired differences. Rows: `single` (the exported model), `ensemble` (the
exported mean, or the single model where none was exported), `best tried` (the best trial on test, in hindsight), and
what a user would write in twenty and in fifty lines (`plain_lines`): `plain` is the better of both on test, cut off at
the budget. Targets' own tasks are taken out of the library.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from plain_lines import PlainLines, plain_lines

from vlmsel_auto.library.file import save
from vlmsel_auto.library.places import default_library
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.records import Task
from vlmsel_auto.tasks.task import load_task


@dataclass(frozen=True, kw_only=True)
class Found:
    """One search; accuracies in [0, 1]."""

    single: float
    ensemble: float
    best_tried: float
    tried: int  # candidates with a complete trial
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Row(Found):
    """One search on one target, and what it is compared with."""

    target: str
    budget: float
    twenty_lines: float
    plain: float  # the better of twenty and fifty lines after the budget; chance where neither has anything


def search(target: Path, *, seconds: float, library: Path, workdir: Path, threads: int) -> Found:
    """One call of the command line."""
    command = [
        sys.executable, "-m", "vlmsel_auto", "search", str(target), "--time-budget", str(seconds), "--workdir",
        str(workdir), "--library", str(library), "--candidates", "mini-zoo", "--no-learn", "--json", "--quiet",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "10000"}
    begun = time.monotonic()
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603 - our own
    spent = time.monotonic() - begun
    answer = json.loads(ran.stdout)
    single = float(answer["best"]["test"])
    mean = answer["ensemble"]
    tested = [each for each in answer["trials"] if each["test"] is not None]
    return Found(
        single=single,
        ensemble=single if mean is None else float(mean["test"]),
        best_tried=max(float(each["test"]) for each in tested),
        tried=len({each["candidate"] for each in tested}),
        seconds=spent,
    )


def baselines(task: Task, *, known: Path | None) -> PlainLines:
    """What a user would write; read from ``known / TARGET.json`` where an earlier run left it there."""
    file = None if known is None else known / f"{task.name}.json"
    if file is not None and file.is_file():
        return decode(PlainLines, json.loads(file.read_text("utf-8")))
    made = plain_lines(task)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(encode(made), indent=1) + "\n", "utf-8")
    return made


def measure(target: Path, budgets: Sequence[float], *, threads: int, known: Path | None) -> list[Row]:
    """All budgets on one target."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        views = tuple(dict.fromkeys(each.view for each in mini_zoo()))
        task = load_task(target, views=views, workdir=Path(scratch) / "task")
        plain = baselines(task, known=known)
        shipped = default_library()
        library = Path(scratch) / "library.safetensors"
        save(shipped.leave_out(target.name) if target.name in shipped.task_names else shipped, library)
        for budget in budgets:
            workdir = Path(scratch) / f"w{budget:g}"
            found = search(target, seconds=budget, library=library, workdir=workdir, threads=threads)
            cut = plain.better_by(budget)
            row = Row(
                target=target.name,
                budget=budget,
                twenty_lines=plain.twenty.test,
                plain=1 / task.n_classes if cut is None else cut,
                **vars(found),
            )
            print(
                f"| {row.target} | {budget:g} | {row.single:.3f} | {row.ensemble:.3f} | {row.best_tried:.3f} | "
                f"{row.tried} | {row.seconds:.0f} | {row.plain:.3f} | {plain.twenty.test:.3f} in "
                f"{plain.twenty.seconds:.0f} s | {plain.fifty[-1].test:.3f} in {plain.fifty[-1].seconds:.0f} s |",
                flush=True,
            )
            rows.append(row)
    return rows


def summary(rows: Sequence[Row], budget: float) -> Mapping[str, float]:
    """Means over targets at one budget, and paired differences with their standard errors."""
    mine = [row for row in rows if row.budget == budget]
    found = {"budget": budget, "targets": float(len(mine))}
    for name in ("single", "ensemble", "best_tried", "tried", "seconds", "twenty_lines", "plain"):
        found[name] = float(np.mean([getattr(row, name) for row in mine]))
    for name, against in (("single", "twenty_lines"), ("ensemble", "twenty_lines"), ("ensemble", "plain")):
        gaps = np.array([getattr(row, name) - getattr(row, against) for row in mine])
        found[f"{name} - {against}"] = float(gaps.mean())
        found[f"{name} - {against}, se"] = (
            float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else float("nan")
        )
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path, help="folder of task folders, each with train/ and test/")
    parser.add_argument("--only", default="", help="comma list of targets; default: all")
    parser.add_argument("--seconds", default="15,60", help="comma list of budgets")
    parser.add_argument("--threads", type=int, default=1, help="of a search")
    parser.add_argument("--plain", type=Path, help="folder that keeps what a user would write, for the next run")
    parser.add_argument("--write", type=Path, help="JSON")
    parser.add_argument("--quick", action="store_true", help="one target, 20 seconds")
    args = parser.parse_args()
    only = set(args.only.split(",")) - {""}
    targets = sorted(each for each in args.targets.iterdir() if each.is_dir() and (not only or each.name in only))
    budgets = [20.0] if args.quick else [float(each) for each in args.seconds.split(",")]
    torch.set_num_threads(args.threads)
    columns = (
        "target", "budget, s", "single", "ensemble", "best tried", "candidates tried", "s", "plain", "twenty lines",
        "fifty lines",
    )  # fmt: skip
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    rows: list[Row] = []
    for target in targets[:1] if args.quick else targets:
        rows += measure(target, budgets, threads=args.threads, known=args.plain)
    means = [summary(rows, budget) for budget in budgets]
    for each in means:
        print(json.dumps({name: round(value, 4) for name, value in each.items()}))
    if args.write:
        record = {"rows": [vars(row) for row in rows], "means": means}
        args.write.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
