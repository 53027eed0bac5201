"""Leave-one-task-out comparison of rankings over a library: every task is a target once, all others are the sources.

Nothing of the target's truth enters a ranking: weights and candidate effects are fitted on the other tasks only.
The two ceilings are no rankings; they say how far any could get.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.rankings import BASE, RANKINGS, Ranker, replicate_scores
from vlmsel_auto.bench.table import MEASURES, BenchRow, BenchTable
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.events import Sink, StageFinished, StageProgress, StageStarted, discard
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.agreement import mean_interval, ndcg, tau_b, top_k_loss
from vlmsel_auto.ranking.sources import Truth, truth_of
from vlmsel_auto.records import FloatArray

_MIN_TASKS: Final = 3
_MIN_CANDIDATES: Final = 6  # below this the top five are everybody


def _measure(score: FloatArray, truth: FloatArray) -> FloatArray:
    """`MEASURES` of a score."""
    return np.array([ndcg(score, truth), tau_b(score, truth), 100.0 * top_k_loss(score, truth)])


def _filled(score: FloatArray) -> FloatArray:
    """Scores with unknown ones in the middle; all equal if none is known."""
    known = np.isfinite(score)
    return np.where(known, score, float(np.median(score[known])) if known.any() else 0.0)


@dataclass(kw_only=True, eq=False)
class _Tally:
    """What rankings came to on the targets so far."""

    figures: dict[str, dict[str, FloatArray]] = field(default_factory=dict)  # ranking -> target -> `MEASURES`

    def add(self, case: Case, target: str, rankings: Mapping[str, Ranker]) -> None:
        """Measure every ranking on one more target."""
        for name, ranking in rankings.items():
            scores = ranking(case)
            if scores:
                measured = [_measure(_filled(score), one) for score in scores for one in case.truths]
                self.figures.setdefault(name, {})[target] = np.mean(measured, axis=0)
        if pairs := replicate_scores(case, case.truths):
            ceiling = np.mean([_measure(score, one) for score, one in pairs], axis=0)
            self.figures.setdefault("replicate_ceiling", {})[target] = ceiling


def run_bench(
    library: Library,
    *,
    truth: Truth = "tuned",
    shots: int = 16,
    seed: int = 0,
    rankings: Mapping[str, Ranker] = RANKINGS,
    sink: Sink = discard,
) -> BenchTable:
    """Compare rankings on every task of a library.

    Args:
        library: at least 3 tasks and 6 candidates. Rankings whose data it lacks are left out of the table.
        truth: "tuned" judges by accuracy after tuning, each run by itself and averaged; "zero_shot" by zero-shot.
        shots: labels a class of the labelled rankings; the library's nearest is taken. 0: without labels.
        seed: of simulated replicates and bootstraps.
        rankings: by name, beside the average rank.
        sink: told of every target.

    Returns:
        The table; rows in the order of ``rankings``, last the replicate ceiling.

    Raises:
        LibraryError: the library is too small.
    """
    if BASE not in rankings:
        rankings = {BASE: RANKINGS[BASE], **rankings}
    accuracies = truth_of(library, truth=truth)
    usable = [s for s in range(len(library.tasks)) if np.isfinite(accuracies[:, s]).sum() >= _MIN_CANDIDATES]
    if len(usable) < _MIN_TASKS:
        raise LibraryError(
            f"a bench needs {_MIN_TASKS} tasks with at least {_MIN_CANDIDATES} candidates each, but got {len(usable)}"
        )
    names = [library.task_names[s] for s in usable]
    tally = _Tally()
    began = time.perf_counter()
    sink(StageStarted(stage="ranking", total=len(usable), text="targets"))
    for done, (s, target) in enumerate(zip(usable, names, strict=True), start=1):
        case = Case(library=library, column=s, truth=truth, shots=shots, seed=seed)
        tally.add(case, target, rankings)
        sink(StageProgress(stage="ranking", done=done, text=target))
    sink(StageFinished(stage="ranking", seconds=time.perf_counter() - began))
    figures = tally.figures
    base = {name: float(values[0]) for name, values in figures[BASE].items()}
    order = [name for name in (*rankings, "replicate_ceiling") if name in figures]
    return BenchTable(
        rows=tuple(_row(name, figures[name], base, seed) for name in order),
        targets=tuple(names),
        candidates=len(library.candidates),
        truth=truth,
        shots=shots,
        notes=_notes(truth, figures, rankings) + _holes(accuracies[:, usable]),
    )


def _row(name: str, figures: Mapping[str, FloatArray], base: Mapping[str, float], seed: int) -> BenchRow:
    means = np.mean(list(figures.values()), axis=0)
    gains = np.array([values[0] - base[target] for target, values in figures.items()])
    compared = len(gains) >= _MIN_TASKS and name != BASE
    return BenchRow(
        ranking=name,
        **dict(zip(MEASURES, map(float, means), strict=True)),
        gain=float(gains.mean()),
        gain_interval=mean_interval(gains, seed=seed) if compared else None,
        targets=len(figures),
        per_target={target: float(values[0]) for target, values in figures.items()},
    )


def _holes(accuracies: FloatArray) -> tuple[str, ...]:
    missing = int((~np.isfinite(accuracies)).sum())
    if not missing:
        return ()
    return (f"{missing} of {accuracies.size} accuracies are unknown: these candidates are left out of those targets",)


def _notes(
    truth: Truth, figures: Mapping[str, Mapping[str, FloatArray]], rankings: Mapping[str, Ranker]
) -> tuple[str, ...]:
    notes = []
    left_out = [name for name in rankings if name not in figures]
    if left_out:
        notes.append(f"left out, as the library lacks their data: {', '.join(left_out)}")
    if truth == "tuned" and "replicate_ceiling" in figures:
        there = figures["replicate_ceiling"]
        fused = [values[0] for target, values in figures.get("fused", {}).items() if target in there]
        beside = f"; the fused ranking has an NDCG@5 of {np.mean(fused):.3f} on these" if fused else ""
        notes.append(
            f"replicate_ceiling: the other tuning runs predict each run, on the {len(there)} targets that have "
            f"several{beside}; runs are tested on the same images, so the ceiling shares their sampling noise"
        )
    elif "replicate_ceiling" in figures:
        notes.append(
            "replicate_ceiling: one test split predicts another of the same size, both simulated by binomial draws"
        )
    return tuple(notes)
