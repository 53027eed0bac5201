"""What rankings by few labels gain by further images without labels: every task of the library left out in turn.

    python -m benchmarks.ranking.few_labels TASKS --write benchmarks/results/few-labels.json
    python -m benchmarks.ranking.few_labels TASKS --quick       # six tasks

Accuracy after tuning is predicted from 1, 2, 4 and 16 labels a class: by a look at the labelled images alone, and at up
to 160 images with them, which are further training images here (`vlmsel_auto/tasks/beside.py`). Two draws of the
labelled images. Conductance is that of the library. Truth is every tuning run of the library by itself. Differences are
paired over tasks, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import change
from benchmarks.ranking.ranking_table import measures
from vlmsel_auto.bench.case import Case
from vlmsel_auto.cache import Store, default_cache_dir
from vlmsel_auto.library.places import default_library
from vlmsel_auto.library.records import Library
from vlmsel_auto.measuring.cells import CellSettings, labelled_draws
from vlmsel_auto.measuring.measure import measure
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.ranking import rank_candidates
from vlmsel_auto.records import FloatArray, IntArray, Task
from vlmsel_auto.tasks.beside import further_images
from vlmsel_auto.tasks.task import load_task

SHOTS = (1, 2, 4, 16)
ALONE, MORE = "labelled images alone", "up to 160 images"


def looks(
    task: Task, models: Sequence[LoadedModel], library: Library, *, labelled: IntArray, others: IntArray, store: Store
) -> list[Measurement]:
    """What every candidate shows, with the library's conductance of the task."""
    found = []
    for model in models:
        seen = measure(model, task, images=np.concatenate([labelled, others]), profiled=None, store=store)
        cell = library.cell(seen.candidate, task.name)
        n = len(labelled)
        found.append(
            replace(
                seen,
                features=seen.features[:n],
                others=seen.features[n:],
                activity=seen.activity if cell is None else cell.activity,
            )
        )
    return found


def judged(task: Task, models: Sequence[LoadedModel], library: Library, *, store: Store) -> dict[str, FloatArray]:
    """NDCG@5, tau-b, top-1 and top-5 loss (4,) of each row and number of labels, mean over draws."""
    truths = Case(library=library, column=library.column(task.name), truth="tuned", shots=0).truths
    found: dict[str, FloatArray] = {}
    for shots in SHOTS:
        scores: dict[str, list[FloatArray]] = {ALONE: [], MORE: []}
        for (draw, count), labelled in labelled_draws(task, CellSettings()).items():
            if count != shots:
                continue
            for row, others in (
                (ALONE, np.empty(0, np.int64)),
                (MORE, further_images(task.train, labelled, seed=draw)),
            ):
                seen = looks(task, models, library, labelled=labelled, others=others, store=store)
                ranking = rank_candidates(task=task.name, targets=seen, labels=task.labels[labelled], library=library)
                score = {line.candidate: line.score for line in ranking.ranked}
                scores[row].append(np.array([score[name] for name in library.candidate_ids]))
        found |= {f"{shots}, {row}": measures(each, truths) for row, each in scores.items()}
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, help="folder of task folders")
    parser.add_argument("--cache", type=Path, default=default_cache_dir() / "few-labels")
    parser.add_argument("--write", type=Path, help="JSON of all rows")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    library, models = default_library(), [zoo.load(one) for one in mini_zoo()]
    args.cache.mkdir(parents=True, exist_ok=True)
    names = library.task_names[:6] if args.quick else library.task_names
    tasks = [load_task(args.tasks / name, workdir=args.cache) for name in names]
    found = [judged(task, models, library, store=Store(args.cache / "store")) for task in tasks]
    print("| labels a class | images looked at | NDCG@5 | tau-b | top-1 loss | and minus the row above |")
    print("|---|---|---|---|---|---|")
    lines: list[dict[str, object]] = []
    for shots in SHOTS:
        alone, more = (np.array([each[f"{shots}, {row}"] for each in found]) for row in (ALONE, MORE))
        gains = [change((more - alone)[:, k], digits=3) for k in range(3)]
        for row, each in ((ALONE, alone), (MORE, more)):
            told = "; ".join(f"{g:+.3f} [{low:+.3f}, {high:+.3f}]" for g, low, high in gains) if row == MORE else ""
            mean = each.mean(axis=0)
            print(f"| {shots} | {row} | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.2f} | {told} |", flush=True)
            lines.append({"shots": shots, "row": row, "tasks": len(tasks), "ndcg5": mean[0], "tau_b": mean[1],
                          "top1_loss": mean[2], **({"gains": gains} if row == MORE else {})})  # fmt: skip
    if args.write is not None:
        args.write.write_text(json.dumps(lines, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
