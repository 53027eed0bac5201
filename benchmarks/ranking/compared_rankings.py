"""QUESTION: Is the ranking better than other published rankings and scores?

PAGE: docs/results/ranking.md
RESULT: benchmarks/results/bench-zeroshot-0.json,
    benchmarks/results/bench-tuned-0.json,
    benchmarks/results/bench-tuned-4.json,
    benchmarks/results/bench-tuned-16.json

    python -m benchmarks.ranking.compared_rankings --truth tuned --shots 16 --write FILE
    python -m benchmarks.ranking.compared_rankings --truth zeroshot --shots 0 --rows swab,iimm

Most of these rows need research figures (`research.py`). ``modelgpt`` is a linear regression on text scores of class
names that was fitted on other tasks (Zohar et al., "LOVM: Language-Only Vision Model Selection", NeurIPS 2023, arXiv
2306.08893); ImageNet accuracy joins where a library has it. `swab.py` and `dcd_authors.py` explain theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from sklearn.linear_model import LinearRegression

from benchmarks.common import command_line, write_json
from benchmarks.ranking import research, swab
from benchmarks.ranking.compared_scores import LABELLED, TEXT_SCORES, UNLABELLED
from benchmarks.ranking.dcd_authors import AUTHORS, authors_weights
from benchmarks.ranking.research import Research, joined
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.rankings import RANKINGS, Ranker, weighted_rank
from vlmsel_auto.bench.run import run_bench
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.ranking.divergence import divergences
from vlmsel_auto.ranking.scaling import known_mean
from vlmsel_auto.ranking.signals import ALIGNMENT, CONSENSUS, TOP2_MARGIN
from vlmsel_auto.records import FloatArray

SIGNALS: Final = (CONSENSUS, ALIGNMENT, TOP2_MARGIN, *UNLABELLED)  # of unlabelled images that have a row
EVIDENCE: Final = ("true_class_zscore", "logme", "leep", *LABELLED)  # of labels
NAMED: Final[Mapping[str, str]] = {TOP2_MARGIN: "top2_margin", "zeroshot": "zeroshot_fewshot"}  # score -> its row


def one(score: FloatArray | None) -> list[FloatArray]:
    """A ranking's answer: the score, or nothing where nobody has one."""
    return [] if score is None or not np.isfinite(score).any() else [score]


def imagenet(case: Case) -> list[FloatArray]:
    """Zero-shot accuracy on ImageNet, where the library has it."""
    for name in case.sources.task_names:
        if name.lower().replace("-", " ").replace("_", " ").startswith(("imagenet 1k", "imagenet1k")):
            return one(case.sources.zero_shot[:, case.sources.column(name)])
    return []


def sizes(figures: Iterable[float | None]) -> list[FloatArray]:
    """The larger the better."""
    return one(np.array(list(figures), dtype=np.float64))  # NaN for None


def calibrated_total(target: FloatArray, sources: FloatArray) -> FloatArray:
    """Conductance totals in units of each model's own on the sources, which takes a logit scale out.

    Args:
        target: (M,) mean total on the target.
        sources: (M, S) on the sources, NaN where unknown.

    Returns:
        (M,) target divided by the mean of the sources; NaN without sources or where that mean is not positive.
    """
    mean = known_mean(sources, axis=1)[:, 0]
    return np.where(mean > 0.0, target / np.where(mean > 0.0, mean, 1.0), np.nan)


def regressed(sources: FloatArray, truth: FloatArray, target: FloatArray) -> FloatArray:
    """What a least-squares fit on the sources predicts of a target, accuracies measured from each task's mean.

    Args:
        sources: (M, S, P) scores on the source tasks, NaN where unknown.
        truth: (M, S) accuracies there, NaN where unknown.
        target: (M, P) scores on the target.

    Returns:
        (M,) predicted accuracy relative to the task's mean; NaN where a score is unknown, all NaN where fewer rows are
        known than there are scores.
    """
    known = np.isfinite(sources).all(axis=2) & np.isfinite(truth)
    rows = np.isfinite(target).all(axis=1)
    result = np.full(len(target), np.nan)
    if known.sum() <= target.shape[1] or not rows.any():
        return result
    centred = truth - known_mean(np.where(known, truth, np.nan), axis=0)
    fit = LinearRegression().fit(sources[known], centred[known])
    result[rows] = fit.predict(target[rows])
    return result


def modelgpt(case: Case) -> list[FloatArray]:
    """ModelGPT's regression on text scores."""
    names = case.library.signal_names
    if any(name not in names for name in TEXT_SCORES):
        return []
    chosen = [names.index(name) for name in TEXT_SCORES]
    target, sources = case.library.signals[case.rows, case.column][:, chosen], case.sources.signals[:, :, chosen]
    for accuracy in imagenet(case):
        target = np.column_stack([target, accuracy])
        known = np.broadcast_to(accuracy[:, None, None], (*sources.shape[:2], 1))
        sources = np.concatenate([sources, known], axis=2)
    return one(regressed(sources, case.source_truth, target))


def dcd_authors_ranking(found: Research) -> Ranker:
    """DCD as its authors compute it, of the profiles with F = norm of the embedding."""

    def rank(case: Case) -> list[FloatArray]:
        means, own = found.norm_means(), np.arange(len(found.tasks)) == case.column
        away = np.stack([divergences(AUTHORS, means[m][own], means[m][~own])[0] for m in case.rows])
        return one(weighted_rank(case.source_truth, authors_weights(away))) if np.isfinite(away).any() else []

    return rank


def without_conductance(ranking: str) -> Ranker:
    """A ranking of the bench where all sources count alike."""

    def rank(case: Case) -> list[FloatArray]:
        unknown = tuple(np.full_like(each, np.nan) for each in case.library.activity)
        return RANKINGS[ranking](replace(case, library=replace(case.library, activity=unknown)))

    return rank


def rankings(found: Research) -> dict[str, Ranker]:
    """Every ranking by name; the library of its cases is one that was `joined` with these research figures."""

    def signal(name: str) -> Ranker:
        return lambda case: one(case.signal(name))

    def evidence(name: str) -> Ranker:
        return lambda case: case.evidence(name)

    def total(case: Case) -> FloatArray:
        return np.asarray(case.library.total[case.rows, case.column])

    return {
        **RANKINGS,
        **{f"{name}_without_conductance": without_conductance(name) for name in ("fused_unlabelled", "fused")},
        "imagenet": imagenet,
        "params": lambda case: sizes(each.params for each in case.sources.candidates),
        "flops": lambda case: sizes(each.flops for each in case.sources.candidates),
        "dcd_authors": dcd_authors_ranking(found),
        "modelgpt": modelgpt,
        "swab": swab.ranking(found),
        "conductance_total": lambda case: one(total(case)),
        "conductance_total_calibrated": lambda case: one(calibrated_total(total(case), case.sources.total)),
        **{NAMED.get(name, name): signal(name) for name in SIGNALS},
        **{NAMED.get(name, name): evidence(name) for name in EVIDENCE},
    }


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--library", type=Path, default=default_library_path())
    parser.add_argument("--research", type=Path, default=research.PATH)
    parser.add_argument("--truth", choices=("zeroshot", "tuned"), default="tuned")
    parser.add_argument("--shots", type=int, default=16, help="labels a class; 0: none")
    parser.add_argument("--rows", help="comma list of rankings; default: all")
    args = parser.parse_args()
    library, found = joined(load(args.library), research.load(args.research))
    every = rankings(found)
    wanted = list(every) if args.rows is None else args.rows.split(",")
    table = run_bench(
        library,
        truth="zero_shot" if args.truth == "zeroshot" else "tuned",
        shots=args.shots,
        rankings={name: every[name] for name in wanted},
    )
    write_json(args.write, table.record())
    print(table.to_markdown())


if __name__ == "__main__":
    main()
