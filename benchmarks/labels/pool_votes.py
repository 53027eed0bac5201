"""Weights of a pool without labels: two ideas beside those that ship, on the classes that the mini zoo names.

    python -m benchmarks.labels.pool_votes TASKS --write benchmarks/results/pool-votes.json

Every task of the shipped library is left out of it in turn. Its images are those whose zero-shot predictions the
library keeps, at most 160; labels (from TASKS) only judge. Members vote with two log-odds for the class that they
name, so the pools are cruder than those of docs/without-labels.md, which average log-probabilities; the best single
candidate in hindsight is judged on the same images. Rows: the five leaders weighted by P(best) + .02, as it ships; all
candidates by P(best); all by the P(best) of the belief (`ranking.label_belief`) that begins at the ranking's; and
per-class weights: a confusion matrix of each candidate against the classes that the belief expects, one step of Dawid &
Skene (1979), whose logarithms weigh by P(best). Nothing was chosen on these tasks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.common import change
from benchmarks.ranking.kept_predictions import hard_votes, named_classes, read_command_line
from vlmsel_auto.bench.case import Case
from vlmsel_auto.ranking.label_belief import believe, prior_weights
from vlmsel_auto.records import UNLABELLED, FloatArray, IntArray

_FLOOR = 0.02
_SIZE = 5
BEST, SHIPPED = "best in hindsight", "pool of five, P(best) of the ranking"


def pools(named: IntArray, p_best: FloatArray, *, n_classes: int) -> dict[str, FloatArray]:
    """Scores (n, K) of images and classes by pool, from the classes (M, n) that candidates name."""
    votes = hard_votes(named, n_classes=n_classes)
    now = believe(votes, prior=prior_weights(p_best, np.eye(len(p_best))), labels=np.full(named.shape[1], UNLABELLED))
    leaders = np.zeros(len(p_best))
    first = np.argsort(-p_best, kind="stable")[:_SIZE]
    leaders[first] = p_best[first] + _FLOOR
    # counts (M, K, K) of named classes beside expected ones, as if each candidate had named them all once by chance
    counts = np.einsum("mij,ik->mjk", votes > 0, now.classes) + 1.0 / n_classes
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
        cells = [change(100 * (values - found[against]), digits=2) for against in (BEST, SHIPPED)]
        above, level = int((values > found[BEST]).sum()), int((values == found[BEST]).sum())
        rows.append({
            "model": name, "accuracy": round(float(values.mean()), 4), "minus_best": cells[0], "minus_pool": cells[1],
            "above_best": above, "level": level, "tasks": len(values),
        })  # fmt: skip
        print(f"| {name} | {100 * values.mean():.1f} | {cells[0]} | {cells[1]} | {above} (level on {level}) |")
    return rows


def main() -> None:
    """Command line."""
    told = read_command_line(__doc__, quick="nine tasks")
    found: dict[str, list[float]] = {}
    for s, task in enumerate(told.library.tasks):
        case = Case(library=told.library, column=s, truth="zero_shot", shots=0)
        named, truth = named_classes(case, s), told.known.labels[task.name]
        scores = pools(named, case.chances(case.fused[0]).p_best, n_classes=task.n_classes)
        found.setdefault(BEST, []).append(float((named == truth).mean(axis=1).max()))
        for name, score in scores.items():
            found.setdefault(name, []).append(float(np.mean(score.argmax(axis=1) == truth)))
    told.finish({"rows": table({name: np.array(values) for name, values in found.items()})})


if __name__ == "__main__":
    main()
