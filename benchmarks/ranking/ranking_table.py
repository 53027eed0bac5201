"""What ranking_ablation.py and dcd_forms.py share: measures of a score and a table of forms against one of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from benchmarks.common import print_head, print_row, told_change
from vlmsel_auto.ranking.agreement import mean_interval, ndcg, tau_b, top_k_loss
from vlmsel_auto.records import FloatArray

CHOSEN = "chosen among these on the other targets"


def measures(scores: Sequence[FloatArray], truths: Sequence[FloatArray]) -> FloatArray:
    """NDCG@5, tau-b, top-1 and top-5 loss in points: mean over draws of the score and over truths."""
    lines = [
        [ndcg(one, t), tau_b(one, t), 100 * top_k_loss(one, t, k=1), 100 * top_k_loss(one, t, k=5)]
        for one in scores
        for t in truths
    ]
    return np.asarray(np.mean(lines, axis=0), dtype=np.float64)


def chosen_elsewhere(found: Mapping[str, FloatArray]) -> FloatArray:
    """The measures (targets, 4) of whichever row is best on the other targets, chosen anew for every target."""
    names = list(found)
    stack = np.stack([found[name][:, 0] for name in names])  # (rows, targets)
    chosen = [int(np.argmax(np.delete(stack, s, axis=1).mean(axis=1))) for s in range(stack.shape[1])]
    return np.array([found[names[index]][s] for s, index in enumerate(chosen)])


def print_table(
    found: Mapping[str, FloatArray], *, title: str, against: str, bounds: Collection[str] = ()
) -> list[dict[str, object]]:
    """Print the rows of a markdown table and return them.

    Args:
        found: name -> measures (targets, 4).
        title: above the table.
        against: the row that gains are told against.
        bounds: rows that are no rankings: not among those that the last row chooses from.
    """
    print(f"\n{title}\n")
    print_head("form", "NDCG@5", "tau-b", "top-1 loss", "top-5 loss", f"NDCG@5 minus {against}, 95 %")
    every = {**found, CHOSEN: chosen_elsewhere({name: one for name, one in found.items() if name not in bounds})}
    rows: list[dict[str, object]] = []
    for name, one in every.items():
        gains = one[:, 0] - found[against][:, 0]
        over = mean_interval(gains, seed=0)
        mean = one.mean(axis=0)
        told = "" if name == against else told_change(gains, digits=3)
        print_row(name, *(f"{each:.{k}f}" for each, k in zip(mean, (3, 3, 2, 2), strict=True)), told)
        rows.append({"table": title, "form": name, "ndcg5": mean[0], "tau_b": mean[1], "top1_loss": mean[2],
                     "top5_loss": mean[3], "gain": gains.mean(), "low": over.low, "high": over.high})  # fmt: skip
    return rows
