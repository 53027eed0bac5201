"""How well one tuning run predicts another, and how near rankings come to that: the replicate ceiling.

Two runs differ in their few-shot images and in the chance of training; they share the test images, which flatters the
ceiling. ``zero-shot`` and ``probe`` are accuracies on the whole test split: oracles that no ranking has. Rankings are
those of `compared_rankings.py` (the target's task left out), but on those tasks only that have several runs for every
candidate. NDCG@5 has relevance max(0, 6 - true rank); every figure is a mean over tasks and runs.

    python -m benchmarks.ranking.replicates                                   # the shipped library, under a minute
    python -m benchmarks.ranking.replicates --library FILE --write OUT.json
    python -m benchmarks.ranking.replicates --quick                           # 16 labels only
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.ranking import research
from benchmarks.ranking.compared_rankings import rankings
from benchmarks.ranking.ranking_table import measures
from benchmarks.ranking.research import joined
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.rankings import Ranking, replicate_scores
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.library.records import Library
from vlmsel_auto.records import FloatArray

BLIND = ("random", "average_rank", "dcd", "swab", "source_ceiling")
UNLABELLED = ("top2_margin", "confidence", "conductance_total", "fused_unlabelled")
LABELLED = ("true_class_zscore", "leep", "knn", "logme", "hscore", "logistic", "fused")


def whole_runs(library: Library, task: int) -> list[FloatArray]:
    """Tuning runs (M,) of a task that know every candidate."""
    return [run for run in library.tuned_runs[:, task].T if np.isfinite(run).all()]


def ranked(
    library: Library, every: Mapping[str, Ranking], tasks: list[int], *, shots: int, names: tuple[str, ...]
) -> dict[str, FloatArray]:
    """Measures of rankings on some tasks."""
    found: dict[str, list[FloatArray]] = {}
    for s in tasks:
        case = Case(library=library, column=s, truth="tuned", shots=shots)
        for name in names:
            scores = every[name](case)
            if scores:
                found.setdefault(name, []).append(measures(scores, whole_runs(library, s)))
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=default_library_path())
    parser.add_argument("--research", type=Path, default=research.PATH, help="scores that no ranking fuses")
    parser.add_argument("--write", type=Path, help="JSON")
    parser.add_argument("--quick", action="store_true", help="16 labels only")
    args = parser.parse_args()
    library = load(args.library)
    library, found = joined(library, research.load(args.research))
    compared = rankings(found)
    tasks = [s for s in range(len(library.tasks)) if len(whole_runs(library, s)) > 1]
    if not tasks:
        parser.error(f"no task of the library has two complete tuning runs, but got {args.library}")

    rows: list[dict[str, object]] = []

    def show(name: str, labels: object, values: FloatArray, ceiling: float) -> None:
        share = f"{100 * values[0] / ceiling:.0f} %"
        print(
            f"| {name} | {labels} | {values[0]:.3f} | {values[1]:.3f} | {values[2]:.2f} | {values[3]:.2f} | {share} |"
        )
        rows.append({"name": name, "labels": labels, "ndcg5": round(values[0], 4), "tau_b": round(values[1], 4),
                     "top1_loss": round(values[2], 3), "top5_loss": round(values[3], 3)})  # fmt: skip

    ceilings = []
    for s in tasks:
        case = Case(library=library, column=s, truth="tuned", shots=0)
        ceilings += [measures([others], [run]) for others, run in replicate_scores(case, whole_runs(library, s))]
    ceiling = np.mean(ceilings, axis=0)
    print(f"{len(tasks)} tasks with several runs: {', '.join(library.task_names[s] for s in tasks)}\n")
    print("| predicts a run | labels a class | NDCG@5 | tau-b | top-1 loss | top-5 loss | share of the ceiling |")
    print("|---|---|---|---|---|---|---|")
    show("another run (the replicate ceiling)", "", ceiling, ceiling[0])
    for name, oracle in (("its own probe on the test split", library.probed), ("zero-shot", library.zero_shot)):
        every = [measures([oracle[:, s]], whole_runs(library, s)) for s in tasks]
        show(f"{name} (an oracle)", "", np.mean(every, axis=0), ceiling[0])
    if not args.quick:
        for name, values in ranked(library, compared, tasks, shots=0, names=(*BLIND, *UNLABELLED)).items():
            show(name, 0, values, ceiling[0])
    for shots in (16,) if args.quick else (1, 4, 16):
        for name, values in ranked(library, compared, tasks, shots=shots, names=LABELLED).items():
            show(name, shots, values, ceiling[0])
    record = {"tasks": [library.task_names[s] for s in tasks], "rows": rows}
    if args.write is not None:
        args.write.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
