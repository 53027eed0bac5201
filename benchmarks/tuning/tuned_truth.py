"""QUESTION: How accurate is every mini-zoo member after few-shot tuning on every task?

PAGE: docs/results/library.md
RESULT: benchmarks/results/tuned-truth.csv

The project's own trials with each method's default setting; the seed draws the few-shot images and seeds
the training. Heads are cross-validated on the few-shot images as a search does it; towers learn from all of them, as
those that a user gets, and their last epoch is kept. Accuracies are
those of the whole test split. One row is appended as soon as its trial is over, and rows that are there are not done
again, so the same command resumes. With ``--jobs`` several processes share the work.

    python -m benchmarks.tuning.tuned_truth TASKS --out benchmarks/results/tuned-truth.csv --seeds 2 --jobs 2
    python -m benchmarks.tuning.tuned_truth TASKS --out truth.csv --quick
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import command_line, folders

if TYPE_CHECKING:
    from vlmsel_auto.models.loadedmodel import LoadedModel
    from vlmsel_auto.records import Candidate, Task

COLUMNS = ("member", "task", "method", "seed", "zeroshot", "accuracy", "seconds", "error")


@dataclass(frozen=True, kw_only=True)
class Job:
    """All trials of one task with one seed."""

    task: Path
    seed: int
    members: tuple[str, ...]
    methods: tuple[str, ...]
    shots: int
    device: str
    workdir: Path
    out: Path
    done: frozenset[tuple[str, str, str, int]]


def run(job: Job) -> int:
    """Do the trials of ``job`` that are not done; return how many were."""
    import torch
    from filelock import FileLock

    from vlmsel_auto.cache import Store
    from vlmsel_auto.errors import TrialFailed
    from vlmsel_auto.models import candidates, zoo
    from vlmsel_auto.tasks import split, task
    from vlmsel_auto.tuning.methods import FINETUNE, PROBE, ZERO_SHOT
    from vlmsel_auto.tuning.runner import Trial, TrialRunner

    torch.set_num_threads(1)
    members = candidates.resolve(job.members)
    views = tuple({one.view for one in members})
    data = task.load_task(job.task, task.TaskOptions(shots=job.shots, seed=job.seed), views=views, workdir=job.workdir)
    few = data.support
    places = split.folds(data.labels[few], np.arange(len(few)), count=split.FOLDS, seed=job.seed)
    parts = tuple(few[each] for each in places)
    for_heads = replace(data, train=np.concatenate(parts[1:]), val=parts[0], folds=parts)
    for_towers = replace(data, train=few, val=few[::16], folds=())  # nothing is chosen by these few images
    count = 0
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "cache")

        def load(candidate: Candidate) -> LoadedModel:
            return zoo.load(candidate, device=job.device)

        def runner(images: Task) -> TrialRunner:
            return TrialRunner(task=images, candidates=members, load=load, store=store, workdir=Path(scratch),
                               device=torch.device(job.device))  # fmt: skip

        for candidate in members:
            none = ZERO_SHOT.default(candidate, train_images=len(few), seed=job.seed)
            start: float | None = None
            for method in job.methods:
                if (candidate.id, job.task.name, method, job.seed) in job.done:
                    continue
                row_of = PROBE if method == PROBE.name else FINETUNE
                mine = for_heads if row_of is PROBE else for_towers
                spec = row_of.default(candidate, train_images=len(few), seed=job.seed)
                row: dict[str, object] = {"member": candidate.id, "task": job.task.name, "method": method,
                                          "seed": job.seed}  # fmt: skip
                try:
                    if start is None:
                        zero = runner(for_towers).run(Trial(number=0, spec=none))
                        start = zero.test
                    began = time.perf_counter()
                    found = runner(mine).run(Trial(number=1, spec=spec))
                    row |= {"zeroshot": start, "accuracy": found.test, "seconds": time.perf_counter() - began}
                except TrialFailed as error:
                    row |= {"error": str(error)}
                with FileLock(f"{job.out}.lock"):
                    append(job.out, row)
                count += 1
    return count


def append(path: Path, row: dict[str, object]) -> None:
    """Add one row to the table, with the header where it is new."""
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="")
        if new:
            writer.writeheader()
        writer.writerow({key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()})
        stream.flush()
        os.fsync(stream.fileno())


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a table; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, write=False, quick="one task, two members, probes only")
    parser.add_argument("tasks", type=Path, help="folder of task folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--methods", default="probe,finetune")
    parser.add_argument("--only", default="", help="comma list of task names; default: all")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    from vlmsel_auto.models.candidates import mini_zoo

    members = tuple(one.id for one in mini_zoo())
    methods = tuple(args.methods.split(","))
    seeds = range(args.seeds)
    if args.quick:
        members, methods, seeds = members[:2], ("probe",), range(1)
    done = frozenset((r["member"], r["task"], r["method"], int(r["seed"])) for r in read(args.out) if not r["error"])
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [
            Job(task=folder, seed=seed, members=members, methods=methods, shots=args.shots, device=args.device,
                workdir=Path(scratch) / folder.name / str(seed), out=args.out, done=done)
            for seed in seeds for folder in folders(args.tasks, only=args.only, quick=args.quick)
        ]  # fmt: skip
        if args.jobs == 1:
            counts = [run(job) for job in jobs]
        else:
            with multiprocessing.get_context("spawn").Pool(args.jobs, maxtasksperchild=4) as workers:
                counts = []
                for count in workers.imap_unordered(run, jobs):
                    counts.append(count)
                    print(f"{len(counts)}/{len(jobs)} jobs, {time.perf_counter() - began:.0f} s", flush=True)
    rows = read(args.out)
    found = [r for r in rows if not r["error"]]
    seconds = sum(float(r["seconds"]) for r in found)
    print(f"{len(found)} rows, {len(rows) - len(found)} failed, {seconds:.0f} s of trials")
    print(json.dumps({"rows": len(found), "failed": len(rows) - len(found), "new": sum(counts),
                      "seconds": round(time.perf_counter() - began, 1)}))  # fmt: skip


if __name__ == "__main__":
    main()
