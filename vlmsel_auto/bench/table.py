"""The table of a bench: one row a ranking, for people as markdown and plot, for programs as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vlmsel_auto.bench.calibration import Bin, Calibration
from vlmsel_auto.bench.rankings import BASE
from vlmsel_auto.cache import Json, write_atomically
from vlmsel_auto.ranking.sources import Truth
from vlmsel_auto.recordjson import encode
from vlmsel_auto.records import Interval

MEASURES: Final = ("ndcg5", "tau_b", "weighted_tau", "top5_overlap", "top1_loss", "top5_loss")


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchRow:
    """One ranking, mean over targets."""

    ranking: str
    ndcg5: float  # relevance max(0, 6 - true rank), linear gain
    tau_b: float
    weighted_tau: float
    top5_overlap: float
    top1_loss: float  # percentage points of accuracy
    top5_loss: float
    seconds: float  # a candidate, to score it from what the library holds
    gain: float  # ndcg5 minus that of the average rank on the same targets
    gain_interval: Interval | None  # 95 %, paired bootstrap over targets
    targets: int
    per_target: Mapping[str, float] = field(default_factory=dict)  # ndcg5 by task


@dataclass(frozen=True, kw_only=True, slots=True)
class Worth:
    """What conductance is worth to a ranking: the mean difference to the same without, paired by target."""

    ranking: str
    ndcg5: float
    ndcg5_interval: Interval  # 95 %, bootstrap over targets
    top1_loss: float  # percentage points of accuracy; below 0: it loses less
    top1_loss_interval: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchTable:
    """The comparison."""

    rows: tuple[BenchRow, ...]
    targets: tuple[str, ...]
    candidates: int
    truth: Truth
    shots: int  # labels a class; 0: none
    calibration: Calibration | None = None  # of the fused ranking
    conductance: tuple[Worth, ...] = ()
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
                "seconds": round(row.seconds, 6),
                **difference("gain", row.gain, row.gain_interval),
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
            "calibration": encode(self.calibration),
            "conductance": encode(self.conductance),
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
            "| ranking | NDCG@5 | tau-b | weighted tau | top-5 overlap | top-1 loss | top-5 loss | gain | ms |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            gain = paired(row.gain, row.gain_interval, digits=3)
            lines.append(
                f"| {row.ranking} | {row.ndcg5:.3f} | {row.tau_b:.3f} | {row.weighted_tau:.3f} | "
                f"{row.top5_overlap:.3f} | {row.top1_loss:.2f} | {row.top5_loss:.2f} | {gain} | "
                f"{1000 * row.seconds:.2f} |"
            )
        if self.conductance:
            lines += ["", "| conductance is worth | NDCG@5 | top-1 loss |", "|---|---|---|"]
            lines += [
                f"| {each.ranking} | {paired(each.ndcg5, each.ndcg5_interval, digits=3)} | "
                f"{paired(each.top1_loss, each.top1_loss_interval, digits=2)} |"
                for each in self.conductance
            ]
        if self.calibration is not None:
            coverage = 100 * self.calibration.coverage
            lines += [
                "",
                "| fused ranking says | best | in the top five |",
                "|---|---|---|",
                f"| probability said: seen (cases) | {_told(self.calibration.best)} | {_told(self.calibration.top5)} |",
                "",
                f"95 % intervals of ranks hold {coverage:.0f} % of {self.calibration.n:,} true ranks.",
            ]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]) + "\n"

    def write(self, folder: Path) -> None:
        """Write bench.json, bench.md and bench.svg into a folder."""
        write_atomically(folder / "bench.json", (json.dumps(self.record(), indent=1) + "\n").encode())
        write_atomically(folder / "bench.md", self.to_markdown().encode())
        self.plot(folder / "bench.svg")

    def plot(self, path: Path) -> None:
        """Draw NDCG@5 of every ranking with the interval of its gain, as an SVG or PNG by the file's suffix."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 0.28 * len(self.rows) + 1.2), layout="constrained")
        axes = figure.subplots()
        base = self.row(BASE).ndcg5
        for place, row in enumerate(self.rows[::-1]):
            ceiling = "_ceiling" in row.ranking
            axes.plot(row.ndcg5, place, "D" if ceiling else "o", color="0.5" if ceiling else "C0")
            if row.gain_interval is not None:
                ends = [base + row.gain_interval.low, base + row.gain_interval.high]
                axes.plot(ends, [place, place], color="0.5" if ceiling else "C0", linewidth=1.0)
        axes.axvline(base, color="0.7", linewidth=1.0, linestyle="--")
        axes.set_yticks(range(len(self.rows)), [row.ranking for row in self.rows[::-1]])
        axes.set_xlabel("NDCG@5, interval of the gain over the average rank (dashed)")
        figure.savefig(path)


def difference(name: str, mean: float, interval: Interval | None) -> dict[str, float | None]:
    """A mean difference and the ends of its interval for JSON."""
    ends = (None, None) if interval is None else (round(interval.low, 6), round(interval.high, 6))
    return {name: round(mean, 6), f"{name}_low": ends[0], f"{name}_high": ends[1]}


def paired(mean: float, interval: Interval | None, *, digits: int) -> str:
    """A mean difference with its interval, for people."""
    ends = "" if interval is None else f" [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
    return f"{mean:+.{digits}f}{ends}"


def _told(bins: Sequence[Bin]) -> str:
    return ", ".join(f"{one.said:.2f}: {one.seen:.2f} ({one.n:,})" for one in bins)
