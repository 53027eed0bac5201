"""QUESTION: Do the ranking's probabilities come true, on images that candidates know and on images that none knows?

PAGE: docs/results/ranking.md
RESULT: benchmarks/results/probabilities.json

    python -m benchmarks.ranking.probabilities --write benchmarks/results/probabilities.json

Each task of the shipped library is left out and ranked. Near: all candidates, where some were trained on the domain.
Far: those that were not (at least six), or all where none was. "P(best)" and "best": what was said of the candidate
that ranks first, and how often it was the best (of several best ones each is a part of one); "error" is the standard
error of their difference over tasks. "Above .5": mean and truth of all claims above one half, and their number. "Top 5
off": mean distance of said from seen over bins of P(top 5). "Held": true ranks in their 95 % intervals. "Lost": points
of accuracy that the first candidate is below the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from benchmarks.common import command_line, print_head, print_row, write_json
from benchmarks.tuning.fresh_targets import far_candidates
from vlmsel_auto.bench.case import Case
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.places import default_library
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.agreement import ndcg
from vlmsel_auto.ranking.sources import Truth
from vlmsel_auto.ranks import RankChances
from vlmsel_auto.records import FloatArray

_EDGES: Final = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0)  # of bins of probabilities
_LEAST_FAR: Final = 6  # candidates
_SURE: Final = 0.5
_SHOTS: Final = (0, 1, 4, 16)
_TRUTHS: Final[tuple[Truth, ...]] = ("tuned", "zero_shot")


@dataclass(frozen=True, kw_only=True, eq=False)
class Claims:
    """Rank chances of M candidates and what came true; tied candidates share a rank."""

    chances: RankChances
    best: FloatArray  # (M,) 1 for the best candidate, else 0
    top5: FloatArray  # (M,) likewise for the best five
    covered: FloatArray  # (M,) 1 where the true rank lies in the 95 % interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Claims of about the same probability."""

    said: float  # mean probability
    seen: float  # how often it came true
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Reliability diagram in numbers, over targets and candidates."""

    best: tuple[Bin, ...]
    top5: tuple[Bin, ...]
    coverage: float  # share of true ranks in their 95 % intervals
    n: int


def _among(truth: FloatArray, k: int) -> FloatArray:
    """Share (M,) of the orders of tied candidates in which each is among the best k."""
    first, last = stats.rankdata(-truth, method="min"), stats.rankdata(-truth, method="max")
    return np.asarray(np.clip((k - first + 1) / (last - first + 1), 0.0, 1.0), dtype=np.float64)


def claims(chances: RankChances, truth: FloatArray) -> Claims:
    """Compare rank chances with the accuracies (M,) that came true."""
    rank = stats.rankdata(-truth)
    return Claims(
        chances=chances,
        best=_among(truth, 1),
        top5=_among(truth, 5),
        covered=np.asarray((chances.low <= rank) & (rank <= chances.high), dtype=np.float64),
    )


def calibration(found: Sequence[Claims]) -> Calibration | None:
    """All claims in bins of probability; None without any."""
    if not found:
        return None
    covered = np.concatenate([one.covered for one in found])
    return Calibration(
        best=_bins([one.chances.p_best for one in found], [one.best for one in found]),
        top5=_bins([one.chances.p_top5 for one in found], [one.top5 for one in found]),
        coverage=float(covered.mean()),
        n=len(covered),
    )


def _bins(predicted: Sequence[FloatArray], outcome: Sequence[FloatArray]) -> tuple[Bin, ...]:
    said, seen = np.concatenate(predicted), np.concatenate(outcome)
    place = np.clip(np.digitize(said, _EDGES) - 1, 0, len(_EDGES) - 2)
    return tuple(
        Bin(said=float(said[place == b].mean()), seen=float(seen[place == b].mean()), n=int((place == b).sum()))
        for b in range(len(_EDGES) - 1)
        if (place == b).any()
    )


def halves(library: Library) -> dict[str, list[tuple[Library, str]]]:
    """Libraries of near and of far candidates, each with the tasks that are targets there."""
    found: dict[str, list[tuple[Library, str]]] = {"near": [], "far": []}
    for name in library.task_names:
        far = [each.id for each in far_candidates(name) if each.id in library.candidate_ids]
        everyone = len(far) == len(library.candidates)
        found["far" if everyone else "near"].append((library, name))
        if len(far) >= _LEAST_FAR and not everyone:
            found["far"].append((library.select(far), name))
    return found


def row(targets: Sequence[tuple[Library, str]], *, truth: Truth, shots: int) -> dict[str, object]:
    """What was said and what came true on these targets."""
    first, told = [], []
    for library, name in targets:
        case = Case(library=library, column=library.task_names.index(name), truth=truth, shots=shots)
        if len(case.rows) < _LEAST_FAR:
            continue
        figures = []
        for scores in case.fused if shots else case.fused_unlabelled:
            chances = case.chances(scores)
            leader = int(np.argmax(scores.score))
            for accuracy in case.truths:
                one = claims(chances, accuracy)
                told.append(one)
                lost = 100 * float(accuracy.max() - accuracy[leader])
                figures.append([chances.p_best[leader], one.best[leader], lost, ndcg(scores.score, accuracy)])
        first.append(np.mean(figures, axis=0))
    found = calibration(told)
    if found is None:
        raise LibraryError("probabilities need a library with targets, but got none")
    table = np.array(first)
    said, seen = np.concatenate([each.chances.p_best for each in told]), np.concatenate([each.best for each in told])
    sure = said > _SURE
    claimed = [round(100 * float(each[sure].mean()), 1) for each in (said, seen)]
    far_off = np.average([abs(b.said - b.seen) for b in found.top5], weights=[b.n for b in found.top5])
    mean, error = table.mean(axis=0), _error(table)
    gap_error = float(_error(table[:, :1] - table[:, 1:2])[0])
    return {
        "truth": truth,
        "labels a class": shots,
        "targets": len(table),
        "P(best) of the first": round(100 * float(mean[0]), 1),
        "is best": round(100 * float(mean[1]), 1),
        "error": round(100 * gap_error, 1),
        "above .5": [*claimed, int(sure.sum())],
        "top 5 off": round(100 * float(far_off), 1),
        "held": round(100 * found.coverage, 1),
        "lost": round(float(mean[2]), 2),
        "NDCG@5": [round(float(mean[3]), 3), round(float(error[3]), 3)],
    }


def _error(table: FloatArray) -> FloatArray:
    return np.asarray(table.std(axis=0, ddof=1) / np.sqrt(len(table)), dtype=np.float64)


def main() -> None:
    """Command line."""
    args = command_line(__doc__).parse_args()
    rows: list[dict[str, object]] = []
    print_head(
        "half",
        "truth",
        "labels",
        "targets",
        "P(best)",
        "best",
        "error",
        "above .5",
        "top 5 off",
        "held",
        "lost",
        "NDCG@5",
    )
    for half, targets in halves(default_library()).items():
        for truth in _TRUTHS:
            for shots in _SHOTS:
                rows.append({"half": half, **row(targets, truth=truth, shots=shots)})
                print_row(*rows[-1].values())
    write_json(args.write, {"probabilities": rows})


if __name__ == "__main__":
    main()
