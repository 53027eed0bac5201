"""QUESTION: Does the precision that the report states of doubtful labels come true, and what is found?

PAGE: docs/results/labelling.md
RESULT: benchmarks/results/doubtful.json

    python -m benchmarks.labels.doubtful TASKS --write benchmarks/results/doubtful.json

Wrong labels are planted among at most 400 test images of a task: 2, 5 or 10 %, any other class or one of the two whose
images are most alike. Three heads judge out of fold, pooled and named by the report's rule: near, of the best
candidates; far, of the best that know little of the domain; weak, of the worst; "one head" is the best candidate
alone. The calibration (slope and offset) is fitted anew for each task to the other tasks' near, far and weak cases.
Labels that were wrong before count as right, so true precision is at least what stands here.

"Equal precision": labels of all cases of a row in one order, as many as keep the precision of the other rule; cleanlab
orders by its issues first, then by normalized margin. The last lines print the calibration of all tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from cleanlab.filter import find_label_issues  # type: ignore[import-untyped]  # it ships no types
from cleanlab.rank import get_label_quality_scores  # type: ignore[import-untyped]  # likewise
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from benchmarks.common import command_line, folders, print_head, print_row, write_json
from benchmarks.labels.doubtful_cases import Case, cases
from vlmsel_auto.cache import default_cache_dir
from vlmsel_auto.records import FloatArray, IntArray
from vlmsel_auto.reporting.label_issues import WEAK, tempered, verdict

_TEAMS: Final = ("near", "far", "weak")  # whose cases calibrate
_ACCURACY: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)
_CHANCE: Final = (0.0, 0.02, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """A case, and what does not depend on the calibration."""

    task: str
    team: str
    planted: str
    rate: float
    given: IntArray  # (n,)
    planted_here: IntArray  # (n,) 1: the label was spoilt
    accuracy: float  # of the team, by the given labels
    log_odds: FloatArray  # (n, K)
    cleanlab: FloatArray  # (n,) the larger the more doubtful; above 1: named


@dataclass(frozen=True, kw_only=True, eq=False)
class Named:
    """A case with its verdict."""

    case: Judged
    wrong: FloatArray  # (n,) probability
    rows: IntArray  # that are named
    power: float

    @property
    def order(self) -> FloatArray:
        """(n,) the larger the more doubtful; above 1: named."""
        above = np.zeros(len(self.wrong))
        above[self.rows] = 1.0
        return self.wrong + above


def judged(one: Case, *, heads: int, team: str) -> Judged:
    """What the first heads say."""
    pooled = one.logs[:heads].mean(axis=0)
    shares = softmax(pooled, axis=1)
    margin = get_label_quality_scores(one.given, shares, method="normalized_margin")
    issues = find_label_issues(one.given, shares, n_jobs=1)
    return Judged(
        task=one.task, team=team, planted=one.planted, rate=one.rate, given=one.given,
        planted_here=(one.given != one.true).astype(np.int64),
        accuracy=float((shares.argmax(axis=1) == one.given).mean()),
        log_odds=tempered(pooled, one.given)[1], cleanlab=1.0 - margin + issues,
    )  # fmt: skip


def calibration(known: Sequence[Judged]) -> tuple[float, float]:
    """Slope and offset; the four rates weigh alike, and so do cases."""
    odds = np.concatenate([one.log_odds[np.arange(len(one.given)), one.given] for one in known])
    planted = np.concatenate([one.planted_here for one in known])
    weight = np.concatenate([np.full(len(one.given), (1.0 if one.rate else 2.0) / len(one.given)) for one in known])
    model = LogisticRegression(C=np.inf, max_iter=500)
    found = model.fit(odds[:, None], planted, sample_weight=weight * len(planted) / weight.sum())
    return float(found.coef_[0, 0]), float(found.intercept_[0])


def left_out(found: Sequence[Judged]) -> list[Named]:
    """Each case by the calibration of the other tasks."""
    named = []
    for task in sorted({one.task for one in found}):
        slope, offset = calibration([one for one in found if one.task != task and one.team in _TEAMS])
        for one in (each for each in found if each.task == task):
            wrong, rows, power = verdict(one.log_odds, one.given, slope=slope, offset=offset)
            named.append(Named(case=one, wrong=wrong, rows=rows, power=power))
    return named


def at_precision(order: FloatArray, planted: IntArray, least: float) -> float:
    """Recall of the longest beginning of the order whose precision is at least that."""
    right = np.cumsum(planted[np.argsort(-order, kind="stable")])
    long = np.flatnonzero(right >= least * np.arange(1, len(right) + 1))
    return float(right[long[-1]] / max(1, right[-1])) if len(long) else 0.0


def row(kind: str, those: Sequence[Named]) -> dict[str, object]:
    """Figures of some cases together."""
    planted = np.concatenate([one.case.planted_here for one in those])
    ours = np.concatenate([one.order for one in those])
    theirs = np.concatenate([one.case.cleanlab for one in those])
    wrong = np.concatenate([one.wrong for one in those])
    mine, total = ours > 1.0, max(1, int(planted.sum()))
    precision = float(planted[mine].mean()) if mine.any() else 1.0
    clean = float(planted[theirs > 1.0].mean())
    return {
        "cases": kind,
        "number": len(those),
        "named": int(mine.sum()),
        "stated": round(float(wrong[mine].mean()), 2) if mine.any() else None,
        "true": round(precision, 2) if mine.any() else None,
        "recall": round(float(planted[mine].sum() / total), 2),
        "too weak": sum(one.power < WEAK for one in those),
        "cleanlab named": int((theirs > 1.0).sum()),
        "cleanlab true": round(clean, 2),
        "cleanlab recall": round(float(planted[theirs > 1.0].sum() / total), 2),
        "recall at its precision": round(at_precision(ours, planted, clean), 2),
        "its recall at ours": round(at_precision(theirs, planted, precision), 2),
    }


def groups(found: Sequence[Named]) -> dict[str, list[Named]]:
    """Cases by team, by what was planted, by the team's accuracy."""
    those: dict[str, list[Named]] = {team: [] for team in (*_TEAMS, "near, one head", "far, one head")}
    mine = [one for one in found if one.case.team in _TEAMS]
    for one in found:
        those[one.case.team].append(one)
    for one in mine:
        those.setdefault(f"{one.case.planted} {one.case.rate:.0%}", []).append(one)
    for low, high in pairwise(_ACCURACY):
        those[f"accuracy {low:.1f} to {min(1.0, high):.1f}"] = [one for one in mine if low <= one.case.accuracy < high]
    return {name: each for name, each in those.items() if each}


def tables(found: Sequence[Named]) -> list[dict[str, object]]:
    """A row a group."""
    rows = [row(name, those) for name, those in groups(found).items()]
    print_head(*rows[0])
    for each in rows:
        print_row(*each.values())
    return rows


def stated(found: Sequence[Named]) -> list[dict[str, object]]:
    """Probability of being wrong against how often it is, of every label, near and far."""
    rows: list[dict[str, object]] = []
    print_head("cases", "probability", "labels", "mean", "true")
    for team in _TEAMS:
        those = [one for one in found if one.case.team == team]
        wrong = np.concatenate([one.wrong for one in those])
        planted = np.concatenate([one.case.planted_here for one in those])
        place = np.digitize(wrong, _CHANCE) - 1
        for at in np.unique(place).tolist():
            here = place == at
            rows.append({
                "cases": team, "probability": f"{_CHANCE[at]:g} to {min(1.0, _CHANCE[at + 1]):g}",
                "labels": int(here.sum()), "mean": round(float(wrong[here].mean()), 3),
                "true": round(float(planted[here].mean()), 3),
            })  # fmt: skip
            print_row(*rows[-1].values())
    return rows


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("tasks", type=Path, help="folder of task folders")
    parser.add_argument("--only", default="", help="comma list of tasks; default: all")
    parser.add_argument("--cache", type=Path, default=default_cache_dir() / "labelling")
    args = parser.parse_args()
    found = []
    for folder in folders(args.tasks, only=args.only):
        for one in cases(folder, cache=args.cache):
            found.append(judged(one, heads=len(one.logs), team=one.team))
            if one.team != "weak":
                found.append(judged(one, heads=1, team=f"{one.team}, one head"))
    named = left_out(found)
    clean = {
        team: sorted((len(one.rows) for one in named if one.case.team == team and not one.case.rate), reverse=True)
        for team in _TEAMS
    }
    record = {
        "tables": tables(named),
        "stated": stated(named),
        "named in clean tasks": clean,
        "slope, offset": [round(each, 2) for each in calibration([one for one in found if one.team in _TEAMS])],
    }
    for name in ("named in clean tasks", "slope, offset"):
        print(f"{name}: {record[name]}")
    write_json(args.write, record)


if __name__ == "__main__":
    main()
