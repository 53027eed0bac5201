"""The table of the bench of real models: for people as markdown, for programs as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vlmsel_auto.bench.table import difference, figures, paired, plot_gains
from vlmsel_auto.records import Interval

MEASURES: Final = ("authors_ndcg5", "ndcg5", "tau_b", "top1_loss")


@dataclass(frozen=True, kw_only=True, eq=False)
class RealRow:
    """One ranking, mean over targets; gains are means of differences to the average rank, paired by target."""

    ranking: str
    what: str  # what it is, in a line
    authors_ndcg5: float  # `ranking.agreement.authors_ndcg`
    ndcg5: float  # `ranking.agreement.ndcg`
    tau_b: float
    top1_loss: float  # percentage points of accuracy
    authors_gain: float  # in authors_ndcg5
    authors_gain_interval: Interval | None  # 95 %, bootstrap over targets; None for the average rank
    gain: float  # in ndcg5
    gain_interval: Interval | None


@dataclass(frozen=True, kw_only=True, eq=False)
class RealTable:
    """The comparison."""

    rows: tuple[RealRow, ...]
    targets: tuple[str, ...]
    candidates: int

    def row(self, ranking: str) -> RealRow:
        """The row of this name.

        Raises:
            KeyError: there is none.
        """
        return {row.ranking: row for row in self.rows}[ranking]

    def to_json(self) -> str:
        """JSON text: ``{"rows": [...], "targets": [...], "candidates": M}``; losses in percentage points."""
        rows = [
            {
                "ranking": row.ranking,
                "what": row.what,
                **figures(row, MEASURES),
                **difference("authors_gain", row.authors_gain, row.authors_gain_interval),
                **difference("gain", row.gain, row.gain_interval),
            }
            for row in self.rows
        ]
        return json.dumps({"rows": rows, "targets": list(self.targets), "candidates": self.candidates}, indent=1)

    def to_markdown(self) -> str:
        """Measures and rows in words, then the table."""
        head = (
            f"{self.candidates} real VLMs ranked on {len(self.targets)} data sets, each left out in turn: conductances "
            "as the DCD authors printed them (one image a data set), truth is the zero-shot accuracy that open_clip "
            "publishes."
        )
        authors = (
            "authors' NDCG@5: the DCD authors' measure, over the models that stand in both the predicted and the true "
            "top five; 0 where fewer than two do. It forgives most misses."
        )
        ours = "NDCG@5: this project's, relevance max(0, 6 - true rank). The two are different numbers."
        rest = (
            "top-1 loss: percentage points of accuracy. In brackets: minus average_rank, paired 95 % bootstrap over "
            "data sets."
        )
        lines = [
            head,
            "",
            *(f"- {line}" for line in (authors, ours, rest)),
            "",
            *(f"- {row.ranking}: {row.what}" for row in self.rows),
            "",
            "| ranking | authors' NDCG@5 | NDCG@5 | tau-b | top-1 loss |",
            "|---|---|---|---|---|",
        ]
        for row in self.rows:
            cells = [
                row.ranking,
                _beside(row.authors_ndcg5, row.authors_gain, row.authors_gain_interval),
                _beside(row.ndcg5, row.gain, row.gain_interval),
                f"{row.tau_b:.3f}",
                f"{row.top1_loss:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def plot(self, path: Path) -> None:
        """Draw NDCG@5 of every ranking with the interval of its gain, as an SVG or PNG by the file's suffix."""
        plot_gains(self.rows, path)


def _beside(value: float, gain: float, interval: Interval | None) -> str:
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({paired(gain, interval, digits=3)})"
