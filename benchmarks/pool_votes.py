"""Weights of a pool without labels: two ideas beside those that ship, on the classes that the mini zoo names.

    python benchmarks/pool_votes.py TASKS --write benchmarks/results/pool-votes.json

Every task of the shipped library is left out of it in turn. Its images are those whose zero-shot predictions the
library keeps, at most 160; labels (from TASKS) only judge. Members vote with `VOTE` log-odds for the class that they
name, so the pools are cruder than those of docs/without-labels.md, which average log-probabilities; the best single
candidate in hindsight is judged on the same images. Rows: the five leaders weighted by P(best) + .02, as it ships; all
candidates by P(best); all by the P(best) of the belief (`ranking.label_belief`) that begins at the ranking's; and
per-class weights: a confusion matrix of each candidate against the classes that the belief expects, one step of Dawid &
Skene (1979), whose logarithms weigh by P(best). Nothing was chosen on these tasks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from belief_signal import VOTE, read_labels

from vlmsel_auto.bench.case import Case
from vlmsel_auto.cache import default_cache_dir
from vlmsel_auto.library.places import default_library
from vlmsel_auto.ranking.agreement import mean_interval
from vlmsel_auto.ranking.label_belief import believe, prior_weights
from vlmsel_auto.records import UNLABELLED, FloatArray, IntArray

_FLOOR = 0.02
_SIZE = 5
BEST, SHIPPED = "best in hindsight", "pool of five, P(best) of the ranking"


def pools(named: IntArray, p_best: FloatArray, *, n_classes: int) -> dict[str, FloatArray]:
    """Scores (n, K) of images and classes by pool, from the classes (M, n) that candidates name."""
    votes = VOTE * (named[:, :, None] == np.arange(n_classes))
    now = believe(votes, prior=prior_weights(p_best, np.eye(len(p_best))), labels=np.full(named.shape[1], UNLABELLED))
    leaders = np.zeros(len(p_best))
    first = np.argsort(-p_best, kind="stable")[:_SIZE]
    leaders[first] = p_best[first] + _FLOOR
    # counts (M, K, K) of named classes beside expected ones, as if each candidate had named them all once by chance
    counts = np.einsum("mij,ik->mjk", votes / VOTE, now.classes) + 1.0 / n_classes
    confusion = np.log(counts / counts.sum(axis=1, keepdims=True))
    by_class = sum(p * table[each] for p, table, each in zip(p_best, confusion, named, strict=True))
    return {
        SHIPPED: np.tensordot(leaders, votes, axes=1),
        "all, P(best) of the ranking": np.tensordot(p_best, votes, axes=1),
        "all, P(best) of the belief": np.tensordot(now.p_best, votes, axes=1),
        "all, weights by class": np.asarray(by_class),
    }


def table(found: Mapping[str, FloatArray]) -> list[dict[str, object]]:
    """Print accuracies (tasks,), and differences to the best in hindsight and to the pool that ships."""
    print("| model | accuracy | minus best in hindsight | minus the shipped weights | above the best on |")
    print("|---|---|---|---|---|")
    rows: list[dict[str, object]] = []
    for name, values in found.items():
        cells = []
        for against in (BEST, SHIPPED):
            gain = 100 * (values - found[against])
            over = mean_interval(gain, seed=0)
            cells.append([round(float(each), 2) for each in (gain.mean(), over.low, over.high)])
        above, level = int((values > found[BEST]).sum()), int((values == found[BEST]).sum())
        rows.append({
            "model": name, "accuracy": round(float(values.mean()), 4), "minus_best": cells[0], "minus_pool": cells[1],
            "above_best": above, "level": level, "tasks": len(values),
        })  # fmt: skip
        print(f"| {name} | {100 * values.mean():.1f} | {cells[0]} | {cells[1]} | {above} (level on {level}) |")
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, help="folder of the library's task folders")
    parser.add_argument("--cache", type=Path, default=default_cache_dir() / "belief-signal")
    parser.add_argument("--write", type=Path, help="JSON of all rows")
    parser.add_argument("--quick", action="store_true", help="nine tasks")
    args = parser.parse_args()
    library = default_library()
    if args.quick:
        library = library.select_tasks(library.task_names[::3])
    known = read_labels(library, args.tasks, cache=args.cache)
    found: dict[str, list[float]] = {}
    for s, task in enumerate(library.tasks):
        case = Case(library=library, column=s, truth="zero_shot", shots=0)
        predicted = library.predicted[case.rows, s]
        named = predicted[:, np.isfinite(predicted).all(axis=0)].astype(np.int64)
        truth = known.labels[task.name]
        scores = pools(named, case.chances(case.fused[0]).p_best, n_classes=task.n_classes)
        found.setdefault(BEST, []).append(float((named == truth).mean(axis=1).max()))
        for name, score in scores.items():
            found.setdefault(name, []).append(float(np.mean(score.argmax(axis=1) == truth)))
    rows = table({name: np.array(values) for name, values in found.items()})
    if args.write is not None:
        args.write.write_text(json.dumps({"rows": rows}, indent=1) + "\n", "utf-8")
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
