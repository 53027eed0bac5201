"""The number that counts: test accuracy of what the user gets, against the seconds that it took.

    python benchmarks/fresh_targets.py TASKS --out TARGETS --train 16 --seed 3
    python benchmarks/final_accuracy.py TARGETS --seconds 15,60 --write benchmarks/results/final-accuracy.json
    python benchmarks/final_accuracy.py TARGETS --quick

Each target is searched as a user would, one call of the command line for each budget; on standard output stands a line
a target and a mean with its paired difference to the twenty lines. Rows: `single` (the exported model), `ensemble` (the
exported mean, or the single model where none was exported), `best tried` (the best trial on test, in hindsight), and
what a user would write in twenty lines: embed the training images by all candidates, fit logistic regression (C = 10),
choose the candidate by 4-fold cross-validated log loss; its seconds are its own. Targets' own tasks are taken out of
the library.
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
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from vlmsel_auto.library.file import save
from vlmsel_auto.library.places import default_library
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.embedding import embed_images
from vlmsel_auto.records import Task
from vlmsel_auto.tasks.task import load_task

_FOLDS = 4


@dataclass(frozen=True, kw_only=True)
class Row:
    """One target at one budget; accuracies in [0, 1]."""

    target: str
    budget: float
    single: float
    ensemble: float
    best_tried: float
    seconds: float
    twenty_lines: float
    twenty_lines_seconds: float


def twenty_lines(task: Task) -> tuple[float, float]:
    """Test accuracy and seconds of the candidate that cross-validation chooses, with its plain head."""
    begun = time.monotonic()
    train, test = np.sort(np.concatenate([task.train, task.val])), np.sort(task.test)
    found: list[tuple[float, float]] = []
    for candidate in mini_zoo():
        model = zoo.load(candidate)
        every = embed_images(model, task, np.concatenate([train, test])).astype(np.float64)
        every /= np.linalg.norm(every, axis=1, keepdims=True)
        known, shown, labels = every[: len(train)], every[len(train) :], task.labels[train]
        folds = StratifiedKFold(max(2, min(_FOLDS, int(np.bincount(labels).min()))), shuffle=True, random_state=0)
        head = LogisticRegression(C=10, max_iter=1_000)
        held_out = cross_val_predict(head, known, labels, cv=folds, method="predict_proba")
        loss = -float(np.log(np.maximum(held_out[np.arange(len(train)), labels], 1e-9)).mean())
        found.append((loss, float(head.fit(known, labels).score(shown, task.labels[test]))))
    return min(found)[1], time.monotonic() - begun


def search(target: Path, *, seconds: float, library: Path, workdir: Path, threads: int) -> dict[str, float]:
    """One call of the command line."""
    command = [
        sys.executable, "-m", "vlmsel_auto", "search", str(target), "--time-budget", str(seconds), "--workdir",
        str(workdir), "--library", str(library), "--no-learn", "--json", "--quiet",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "10000"}
    begun = time.monotonic()
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603 - our own
    spent = time.monotonic() - begun
    answer = json.loads(ran.stdout)
    single = float(answer["best"]["test"])
    mean = answer["ensemble"]
    return {
        "single": single,
        "ensemble": single if mean is None else float(mean["test"]),
        "best_tried": max(float(each["test"] or 0.0) for each in answer["trials"]),
        "seconds": spent,
    }


def measure(target: Path, budgets: Sequence[float], *, threads: int) -> list[Row]:
    """All budgets on one target."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        views = tuple(dict.fromkeys(each.view for each in mini_zoo()))
        task = load_task(target, views=views, workdir=Path(scratch) / "task")
        plain, seconds = twenty_lines(task)
        known = default_library()
        library = Path(scratch) / "library.safetensors"
        save(known.leave_out(target.name) if target.name in known.task_names else known, library)
        for budget in budgets:
            workdir = Path(scratch) / f"w{budget:g}"
            found = search(target, seconds=budget, library=library, workdir=workdir, threads=threads)
            row = Row(target=target.name, budget=budget, twenty_lines=plain, twenty_lines_seconds=seconds, **found)
            print(
                f"| {row.target} | {budget:g} | {row.single:.3f} | {row.ensemble:.3f} | {row.best_tried:.3f} | "
                f"{row.seconds:.0f} | {plain:.3f} | {seconds:.0f} |",
                flush=True,
            )
            rows.append(row)
    return rows


def summary(rows: Sequence[Row], budget: float) -> Mapping[str, float]:
    """Means over targets at one budget, and mean and standard error of the difference to the twenty lines."""
    mine = [row for row in rows if row.budget == budget]
    found = {"budget": budget, "targets": float(len(mine))}
    for name in ("single", "ensemble", "best_tried", "twenty_lines"):
        found[name] = float(np.mean([getattr(row, name) for row in mine]))
    for name in ("single", "ensemble"):
        gaps = np.array([getattr(row, name) - row.twenty_lines for row in mine])
        found[f"{name}_gain"] = float(gaps.mean())
        found[f"{name}_gain_se"] = float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else float("nan")
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path, help="folder of task folders, each with train/ and test/")
    parser.add_argument("--only", default="", help="comma list of targets; default: all")
    parser.add_argument("--seconds", default="15,60", help="comma list of budgets")
    parser.add_argument("--threads", type=int, default=1, help="of a search")
    parser.add_argument("--write", type=Path, help="JSON")
    parser.add_argument("--quick", action="store_true", help="one target, 20 seconds")
    args = parser.parse_args()
    only = set(args.only.split(",")) - {""}
    targets = sorted(each for each in args.targets.iterdir() if each.is_dir() and (not only or each.name in only))
    budgets = [20.0] if args.quick else [float(each) for each in args.seconds.split(",")]
    columns = ("target", "budget, s", "single", "ensemble", "best tried", "s", "twenty lines", "s")
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    rows: list[Row] = []
    for target in targets[:1] if args.quick else targets:
        rows += measure(target, budgets, threads=args.threads)
    means = [summary(rows, budget) for budget in budgets]
    for each in means:
        print(json.dumps({name: round(value, 4) for name, value in each.items()}))
    if args.write:
        record = {"rows": [vars(row) for row in rows], "means": means}
        args.write.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
