"""Means, paired differences and overtuning of `final_accuracy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.common import by_target, standard_error

PAIRS = (
    ("single", "twenty lines"),
    ("ensemble", "twenty lines"),
    ("ensemble", "best of scripts"),
    ("single", "best of their towers"),
    ("single", "plain Optuna"),
    ("single", "hard top 3"),
    ("single", "best tried"),
    ("single", "median tried"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One target, seed and budget; a row of ``accuracy`` is missing where it has nothing yet."""

    target: str
    seed: int
    budget: float
    seconds: float  # that the search took
    tried: int  # candidates with a complete trial
    calibration_error: float  # of the ensemble
    accuracy: Mapping[str, float]  # on test, in [0, 1]
    calibration_floor: float | None = None  # what exact probabilities would show; None: of an older record

    def line(self) -> str:
        """One line of a table."""
        told = ", ".join(f"{name} {value:.3f}" for name, value in self.accuracy.items())
        return f"| {self.target} | {self.seed} | {self.budget:g} | {self.seconds:.1f} | {self.tried} | {told} |"


def rows_of(rows: Sequence[Row]) -> list[dict[str, object]]:
    """For JSON."""
    return [{**vars(row), "accuracy": dict(row.accuracy)} for row in rows]


def summary(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """By budget: means over targets (and seeds), differences of pairs and their standard errors over targets.

    "relative overtuning" (Schneider, Bischl, Feurer, AutoML 2025) of the single model: what it lost against an earlier
    budget, over what the best budget so far had gained on the first; 0 at the first. Sums over runs are divided, since
    single runs may have gained nothing.
    """
    found: dict[str, dict[str, float]] = {}
    for budget in sorted({row.budget for row in rows}):
        mine = [row for row in rows if row.budget == budget]
        means = {"runs": float(len(mine)), "seconds": float(np.mean([row.seconds for row in mine]))}
        means["calibration error"] = float(np.mean([row.calibration_error for row in mine]))
        floors = [row.calibration_floor for row in mine if row.calibration_floor is not None]
        if floors:
            means["calibration floor"] = float(np.mean(floors))
        means["tried"] = float(np.mean([row.tried for row in mine]))
        names = list(dict.fromkeys(name for row in mine for name in row.accuracy))
        for name in names:
            known = [row.accuracy[name] for row in mine if name in row.accuracy]
            means[name] = float(np.mean(known))
            if len(known) < len(mine):
                means[f"{name}, runs"] = float(len(known))
        for name, against in PAIRS:
            both = [row for row in mine if name in row.accuracy and against in row.accuracy]
            gaps = by_target((row.target, row.accuracy[name] - row.accuracy[against]) for row in both)
            if len(gaps):
                means[f"{name} - {against}"] = float(gaps.mean())
                means[f"{name} - {against}, worst"] = float(gaps.min())
            if len(gaps) > 1:
                means[f"{name} - {against}, se"] = standard_error(gaps)
        means["relative overtuning"] = _overtuning(rows, budget)
        found[f"{budget:g}"] = {name: round(value, 4) for name, value in means.items()}
    return found


def _overtuning(rows: Sequence[Row], budget: float) -> float:
    lost = gained = 0.0
    for target, seed in sorted({(row.target, row.seed) for row in rows}):
        mine = sorted((row for row in rows if (row.target, row.seed) == (target, seed)), key=lambda row: row.budget)
        past = [row.accuracy["single"] for row in mine if row.budget <= budget]
        if past:
            lost += max(past) - past[-1]
            gained += max(past) - past[0]
    return lost / gained if gained else 0.0
