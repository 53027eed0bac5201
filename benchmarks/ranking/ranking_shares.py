"""QUESTION: What do rankings reach of the replicate ceiling?

PAGE: docs/results/ranking.md
RESULT: none

    python -m benchmarks.ranking.ranking_shares

A share is the mean NDCG@5 of a ranking over that of the ceiling, on the targets that have one; its 95 % interval comes
from drawing targets with replacement, both means from the same draw. Losses are those of the first, in points of
accuracy, over all targets. The last line is one JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import command_line, print_head, print_row
from vlmsel_auto.ranking.agreement import RESAMPLES
from vlmsel_auto.records import FloatArray

RESULTS = Path(__file__).parents[1] / "results"
COLUMNS = {
    "zero-shot truth, no labels": "bench-zeroshot-0.json",
    "tuned, none": "bench-tuned-0.json",
    "tuned, 4 a class": "bench-tuned-4.json",
    "tuned, 16 a class": "bench-tuned-16.json",
}
CEILING = "replicate ceiling"
ROWS = {
    "random": "random",
    "average rank": "average_rank",
    "ours": "fused",
    "ours without conductance": "fused_without_conductance",
    CEILING: "replicate_ceiling",
}


def share(values: FloatArray, ceiling: FloatArray) -> tuple[float, float, float]:
    """Ratio of the means over targets (n,), and its 95 % interval."""
    draws = np.random.default_rng(0).integers(len(values), size=(2 * RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1) / ceiling[draws].mean(axis=1), [0.025, 0.975])
    return float(values.mean() / ceiling.mean()), float(low), float(high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One ranking under one truth."""

    share: tuple[float, float, float]  # of the ceiling, and its interval
    ndcg5: float  # on the targets that have a ceiling
    top1_loss: float  # points, on all
    targets: int  # that have a ceiling


def column(path: Path) -> dict[str, Cell]:
    """Share, interval and top-1 loss of every row."""
    rows = {row["ranking"]: row for row in json.loads(path.read_text("utf-8"))["rows"]}
    top: Mapping[str, float] = rows["replicate_ceiling"]["ndcg5_by_target"]
    ceiling = np.array(list(top.values()))
    found = {}
    for title, name in ROWS.items():
        values = np.array([rows[name]["ndcg5_by_target"][target] for target in top])
        found[title] = Cell(
            share=share(values, ceiling),
            ndcg5=float(values.mean()),
            top1_loss=float(rows[name]["top1_loss"]),
            targets=len(values),
        )
    return found


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, write=False)
    parser.parse_args()
    found = {title: column(RESULTS / name) for title, name in COLUMNS.items()}
    print_head("ranking", *found)
    for row in ROWS:
        cells = []
        for each in found.values():
            cell = each[row]
            mean, low, high = (100 * value for value in cell.share)
            reached = f"NDCG@5 {cell.ndcg5:.3f}" if row == CEILING else f"{mean:.0f} % [{low:.0f}, {high:.0f}]"
            cells.append(f"{reached}; {cell.top1_loss:.1f}")
        print_row(row, *cells)
    print(json.dumps({title: {row: asdict(cell) for row, cell in each.items()} for title, each in found.items()}))


if __name__ == "__main__":
    main()
