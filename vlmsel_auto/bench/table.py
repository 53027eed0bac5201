"""The table of a bench: one row a ranking, for people as markdown, for programs as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vlmsel_auto.cache import Json
from vlmsel_auto.ranking.sources import Truth
from vlmsel_auto.records import Interval

MEASURES: Final = ("ndcg5", "tau_b", "top1_loss")


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchRow:
    """One ranking, mean over targets."""

    ranking: str
    ndcg5: float  # relevance max(0, 6 - true rank), linear gain
    tau_b: float
    top1_loss: float  # percentage points of accuracy
    gain: float  # ndcg5 minus that of the average rank on the same targets
    gain_interval: Interval | None  # 95 %, paired bootstrap over targets
    targets: int
    per_target: Mapping[str, float] = field(default_factory=dict)  # ndcg5 by task


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchTable:
    """The comparison."""

    rows: tuple[BenchRow, ...]
    targets: tuple[str, ...]
    candidates: int
    truth: Truth
    shots: int  # labels a class; 0: none
    notes: tuple[str, ...] = ()

    def row(self, ranking: str) -> BenchRow:
        """The row of this name.

        Raises:
            KeyError: there is none.
        """
        return {row.ranking: row for row in self.rows}[ranking]

    def record(self) -> dict[str, Json]:
        """JSON: ``{"rows": [...], "targets": n, ...}``; losses in percentage points."""
        rows: list[Json] = [
            {
                "ranking": row.ranking,
                **{name: round(float(getattr(row, name)), 6) for name in MEASURES},
                "gain": round(row.gain, 6),
                "gain_low": None if row.gain_interval is None else round(row.gain_interval.low, 6),
                "gain_high": None if row.gain_interval is None else round(row.gain_interval.high, 6),
                "targets": row.targets,
                "ndcg5_by_target": {name: round(value, 6) for name, value in row.per_target.items()},
            }
            for row in self.rows
        ]
        return {
            "rows": rows,
            "targets": len(self.targets),
            "target_names": list(self.targets),
            "candidates": self.candidates,
            "truth": self.truth,
            "shots": self.shots,
            "notes": list(self.notes),
        }

    def to_markdown(self) -> str:
        """A table for people, with what must be known to read it."""
        head = (
            f"{len(self.targets)} targets x {self.candidates} candidates, leave one task out; truth: {self.truth}; "
            f"{self.shots or 'no'} labels a class. NDCG@5 has relevance max(0, 6 - true rank). Losses are percentage "
            "points. Gain is NDCG@5 minus that of the average rank, with a paired 95 % bootstrap over targets."
        )
        lines = [
            head,
            "",
            "| ranking | NDCG@5 | tau-b | top-1 loss | gain |",
            "|---|---|---|---|---|",
        ]
        for row in self.rows:
            over = row.gain_interval
            ends = "" if over is None else f" [{over.low:+.3f}, {over.high:+.3f}]"
            figures = f"{row.ndcg5:.3f} | {row.tau_b:.3f} | {row.top1_loss:.2f} | {row.gain:+.3f}{ends}"
            lines.append(f"| {row.ranking} | {figures} |")
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]) + "\n"
