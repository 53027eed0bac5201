"""How well one tuning run foretells another: the replicate ceiling, pair by pair.

Runs of a library that share training images and test images agree better than runs that do not, so the pairs stand
apart. ``zero-shot`` and ``probe`` are the accuracies before tuning and of linear probes on the whole test split, as
oracles that no ranking has. Mean over tasks where both are complete; NDCG@5 has relevance max(0, 6 - true rank).

    python benchmarks/replicates.py                                   # the shipped library
    python benchmarks/replicates.py --library FILE --write OUT.json   # --quick: the same, it takes seconds
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

from vlmsel_auto.library.library import default_library_path, load
from vlmsel_auto.ranking.agreement import ndcg, tau_b, top_k_loss
from vlmsel_auto.records import FloatArray


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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=default_library_path())
    parser.add_argument("--write", type=Path, help="JSON of all pairs")
    parser.add_argument("--quick", action="store_true", help="the same")
    args = parser.parse_args()
    library = load(args.library)
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
    text = json.dumps({"pairs": rows})
    if args.write is not None:
        args.write.write_text(json.dumps({"pairs": rows}, indent=1) + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
