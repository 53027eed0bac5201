"""The rankings that the bench compares: each takes one target of a library and returns scores of its candidates.

A ranking returns a list: one score vector a draw of the labelled images, or one in all; empty when the library lacks
what it needs. The rows of single signals come from the registry, `ranking.signals.SIGNALS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from scipy import stats

from vlmsel_auto.bench.blind import average_rank, calibrated_total, source_ceiling, weighted_rank
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.modelgpt import regressed
from vlmsel_auto.bench.research import Research
from vlmsel_auto.bench.swab import borda, class_plan, class_rank_score, gap_score, similar_classes
from vlmsel_auto.ranking.dcd_authors import AUTHORS, authors_weights
from vlmsel_auto.ranking.divergence import divergences
from vlmsel_auto.ranking.evidence.text import TEXT_SCORES
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.ranking.scores import score_candidates
from vlmsel_auto.ranking.signals import ALIGNMENT, CONSENSUS, SIGNALS, Signal
from vlmsel_auto.ranking.sources import images_behind
from vlmsel_auto.records import FloatArray

_REPLICATES: Final = 20  # simulated pairs of test splits


def _one(score: FloatArray | None) -> list[FloatArray]:
    return [] if score is None or not np.isfinite(score).any() else [score]


def _imagenet(case: Case) -> list[FloatArray]:
    for name in case.sources.task_names:
        if name.lower().replace("-", " ").replace("_", " ").startswith(("imagenet 1k", "imagenet1k")):
            return _one(case.sources.zero_shot[:, case.sources.column(name)])
    return []


def _sizes(sizes: Iterable[float | None]) -> list[FloatArray]:
    return _one(np.array(list(sizes), dtype=np.float64))  # NaN for None


def _dcd(case: Case) -> list[FloatArray]:
    sources = case.gathered(shots=0)
    if not sources.profiled:
        return []
    return _one(score_candidates(measured={}, sources=sources, n=len(case.rows)).dcd)


def _authors(case: Case) -> list[FloatArray]:
    if case.research is None:
        return []
    profiles = replace(case, norm=True).profiles(case.research)
    found = np.stack([divergences(AUTHORS, target, sources)[0] for sources, target in profiles])
    return _one(weighted_rank(case.source_truth, authors_weights(found))) if np.isfinite(found).any() else []


def _total(case: Case) -> FloatArray:
    return np.asarray(case.library.total[case.rows, case.column])


def _standardised_gaps(research: Research, m: int) -> FloatArray:
    """Image mean minus text of every class (G, D), each standardised: images within their task, texts over all."""
    text, image = research.class_text[m], research.class_image[m]
    gaps = np.full(text.shape, np.nan)
    z_text = standardise(text)
    for s, part in enumerate(research.class_slices()):
        spread = np.where(research.image_sd[m][s] > 0.0, research.image_sd[m][s], 1.0)
        if np.isfinite(image[part]).all():
            gaps[part] = (image[part] - image[part].mean(axis=0)) / spread - z_text[part]
    return gaps


def _swab(case: Case) -> list[FloatArray]:
    research = case.research
    if research is None:
        return []
    target = research.class_slices()[case.column]
    sources = research.take(case.rows, np.delete(np.arange(len(research.tasks)), case.column))
    ranks = stats.rankdata(sources.class_accuracy, axis=0, nan_policy="omit") - 1.0
    first, second = np.full(len(case.rows), np.nan), np.full(len(case.rows), np.nan)
    for i, m in enumerate(case.rows):
        own, text = sources.class_text[i], research.class_text[m][target]
        if own.shape[1] == 0 or not np.isfinite(text).all():
            continue
        gaps = _standardised_gaps(sources, i)
        kept = np.isfinite(gaps).all(axis=1) & np.isfinite(sources.class_accuracy[i])
        kept &= similar_classes(np.nan_to_num(own), text)
        if kept.sum() < 2:  # noqa: PLR2004 - a plan between fewer says nothing
            continue
        spread = own[kept].std(axis=0)
        first[i] = gap_score(
            class_plan(own[kept], text, kind="exact"),
            source_gaps=gaps[kept],
            target_text=text,
            text_mean=own[kept].mean(axis=0),
            text_sd=np.where(spread > 0.0, spread, 1.0),
        )
        second[i] = class_rank_score(class_plan(own[kept], text, kind="partial"), ranks[i, kept])
    if not np.isfinite(second).any():
        return []
    return [borda(np.nan_to_num(first, nan=-np.inf), np.nan_to_num(second, nan=-np.inf))]


def _modelgpt(case: Case) -> list[FloatArray]:
    names = case.library.signal_names
    if any(name not in names for name in TEXT_SCORES):
        return []
    chosen = [names.index(name) for name in TEXT_SCORES]
    target, sources = case.library.signals[case.rows, case.column][:, chosen], case.sources.signals[:, :, chosen]
    for imagenet in _imagenet(case):
        target = np.column_stack([target, imagenet])
        known = np.broadcast_to(imagenet[:, None, None], (*sources.shape[:2], 1))
        sources = np.concatenate([sources, known], axis=2)
    return _one(regressed(sources, case.source_truth, target))


def _row_of(signal: Signal) -> Callable[[Case], list[FloatArray]]:
    if signal.labelled:
        return lambda case: case.evidence(signal.name)
    return lambda case: _one(case.signal(signal.name))


RANKINGS: Final[Mapping[str, Callable[[Case], list[FloatArray]]]] = {
    "random": lambda case: [np.zeros(len(case.rows))],  # ties are averaged over all orders: the exact expectation
    "average_rank": lambda case: [average_rank(case.source_truth)],
    "imagenet": _imagenet,
    "params": lambda case: _sizes(one.params for one in case.sources.candidates),
    "flops": lambda case: _sizes(one.flops for one in case.sources.candidates),
    "dcd": _dcd,
    "dcd_authors": _authors,
    "modelgpt": _modelgpt,
    "swab": _swab,
    "conductance_total": lambda case: _one(_total(case)),
    "conductance_total_calibrated": lambda case: _one(calibrated_total(_total(case), case.sources.total)),
    "consensus": lambda case: _one(case.signal(CONSENSUS)),
    "alignment": lambda case: _one(case.signal(ALIGNMENT)),
    **{one.row: _row_of(one) for one in SIGNALS if one.row and not one.labelled},
    "fused_unlabelled": lambda case: [one.score for one in case.fused_unlabelled],
    "fused_unlabelled_without_conductance": lambda case: [
        one.score for one in case.without_conductance.fused_unlabelled
    ],
    **{one.row: _row_of(one) for one in SIGNALS if one.row and one.labelled},
    "fused": lambda case: [one.score for one in case.fused],
    "fused_without_conductance": lambda case: [one.score for one in case.without_conductance.fused],
    "source_ceiling": lambda case: [source_ceiling(case.accuracy[case.rows], case.source_truth)],
}

WITHOUT_CONDUCTANCE: Final[Mapping[str, str]] = {  # ranking -> the same without
    name: f"{name}_without_conductance" for name in ("fused_unlabelled", "fused")
}


def replicate_scores(case: Case, truths: Sequence[FloatArray]) -> list[tuple[FloatArray, FloatArray]]:
    """Pairs of a replicate and the truth that it predicts.

    With several tuning runs: the mean of the others against each. With one figure of zero-shot accuracy: two test
    splits of the same size against each other, by `drawn_pair`. Else nothing.
    """
    if len(truths) > 1:
        stack = np.stack(truths)
        # never as sum less own: rounding would break ties of equal accuracies
        return [(np.delete(stack, r, axis=0).mean(axis=0), stack[r]) for r in range(len(stack))]
    n = int(images_behind(case.library, truth=case.truth)[case.column])
    if case.truth == "tuned" or n <= 0:
        return []
    rng = np.random.default_rng([case.seed, case.column])
    accuracy = np.clip(truths[0], 0.0, 1.0)
    return [drawn_pair(accuracy, n, rng) for _ in range(_REPLICATES)]


def drawn_pair(accuracy: FloatArray, images: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Accuracies on two test splits of so many images around ``accuracy`` (M,), by independent binomial draws.

    Both are drawn: a draw against the accuracies themselves would take their own sampling noise for knowledge
    (benchmarks/zero_shot_ceiling.py).
    """
    return rng.binomial(images, accuracy) / images, rng.binomial(images, accuracy) / images
