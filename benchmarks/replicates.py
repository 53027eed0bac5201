"""How well one tuning run foretells another: the replicate ceiling, pair by pair.

Runs of a library that share training images and test images agree better than runs that do not, so the pairs stand
apart. ``zero-shot`` and ``probe`` are the accuracies before tuning and of linear probes on the whole test split, as
oracles that no ranking has. Mean over tasks where both are complete; NDCG@5 has relevance max(0, 6 - true rank).

With ``--tuned TABLE.csv`` the runs of a table join (`library.tuned.import_tuned`); with ``--judge RUN`` the fused
ranking and the scores of 16 labels, learned without that run, are held against it too.

    python benchmarks/replicates.py                                   # the shipped library
    python benchmarks/replicates.py --tuned benchmarks/results/tuned-truth.csv --judge "finetune seed=0"
    python benchmarks/replicates.py --library FILE --write OUT.json   # --quick: the same, it takes seconds
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from vlmsel_auto.library.library import default_library_path, load
from vlmsel_auto.library.records import Library
from vlmsel_auto.library.tuned import import_tuned
from vlmsel_auto.ranking.agreement import ndcg, tau_b, top_k_loss
from vlmsel_auto.ranking.bench_rankings import RANKINGS, Case
from vlmsel_auto.ranking.divergence import DEFAULT
from vlmsel_auto.records import FloatArray

JUDGED = ("average_rank", "dcd", "confidence", "knn", "logme", "hscore", "leep", "logistic", "ridge", "fused")


def agreement(first: FloatArray, second: FloatArray) -> dict[str, float]:
    """Means over the tasks that both (M, S) know for every candidate."""
    both = np.flatnonzero(np.isfinite(first).all(axis=0) & np.isfinite(second).all(axis=0))
    pairs = [(first[:, s], second[:, s]) for s in both]
    return {
        "tasks": len(pairs),
        "ndcg5": float(np.mean([ndcg(a, b) for a, b in pairs])) if pairs else float("nan"),
        "tau_b": float(np.mean([tau_b(a, b) for a, b in pairs])) if pairs else float("nan"),
        "top1_loss": float(np.mean([100 * top_k_loss(a, b, k=1) for a, b in pairs])) if pairs else float("nan"),
    }


def judged(library: Library, run: str) -> dict[str, FloatArray]:
    """Mean NDCG@5, tau-b and top-1 loss of rankings that never saw the run, on the tasks where it is complete."""
    place = library.run_names.index(run)
    others = [r for r in range(len(library.run_names)) if r != place]
    learned = replace(
        library,
        run_names=tuple(library.run_names[r] for r in others),
        run_sources=tuple(library.run_sources[r] for r in others),
        tuned_runs=library.tuned_runs[:, :, others],
        probed=np.full_like(library.probed, np.nan),
    )
    truth = library.tuned_runs[:, :, place]
    rows = np.arange(len(library.candidates))
    found: dict[str, list[FloatArray]] = {}
    for s in np.flatnonzero(np.isfinite(truth).all(axis=0)):
        case = Case(library=learned, column=int(s), rows=rows, truth="tuned", shots=16, form=DEFAULT, seed=0)
        for name in JUDGED:
            measured = [
                [ndcg(score, truth[:, s]), tau_b(score, truth[:, s]), 100 * top_k_loss(score, truth[:, s], k=1)]
                for score in RANKINGS[name](case)
            ]
            found.setdefault(name, []).append(np.mean(measured, axis=0))
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=default_library_path())
    parser.add_argument("--tuned", type=Path, help="table of further runs")
    parser.add_argument("--judge", metavar="RUN", help="also hold rankings against this run")
    parser.add_argument("--write", type=Path, help="JSON of all pairs")
    parser.add_argument("--quick", action="store_true", help="the same")
    args = parser.parse_args()
    library = load(args.library)
    if args.tuned is not None:
        library = import_tuned(library, args.tuned)
    runs = {name: library.tuned_runs[:, :, r] for r, name in enumerate(library.run_names)}
    oracles = {"zero-shot": library.zero_shot, "probe": library.probed}
    pairs = [*itertools.permutations(runs, 2), *itertools.product(oracles, runs)]
    rows = []
    print("| foretells | what | tasks | NDCG@5 | tau-b | top-1 loss |\n|---|---|---|---|---|---|")
    for first, second in pairs:
        found = agreement((runs | oracles)[first], runs[second])
        if found["tasks"]:
            rows.append({"first": first, "second": second, **{key: round(value, 4) for key, value in found.items()}})
            print(f"| {first} | {second} | {found['tasks']} | {found['ndcg5']:.3f} | {found['tau_b']:.3f} | "
                  f"{found['top1_loss']:.2f} |")  # fmt: skip
    record: dict[str, object] = {"pairs": rows}
    if args.judge is not None:
        held = judged(library, args.judge)
        record |= {"judge": args.judge, "rankings": {name: values.round(4).tolist() for name, values in held.items()}}
        for name, values in held.items():
            print(f"| {name} | {args.judge} | | {values[0]:.3f} | {values[1]:.3f} | {values[2]:.2f} |")
    if args.write is not None:
        args.write.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
