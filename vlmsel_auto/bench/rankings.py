"""The rankings that the bench compares: each takes one target of a library and returns scores of its candidates.

A ranking returns a list: one score vector a draw of the labelled images, or one in all; empty when the library lacks
what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from vlmsel_auto.bench.blind import average_rank, calibrated_total, source_ceiling
from vlmsel_auto.bench.modelgpt import regressed
from vlmsel_auto.bench.swab import borda, class_plan, class_rank_score, gap_score, similar_classes
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.divergence import PAPER, DcdForm
from vlmsel_auto.ranking.evidence.text import TEXT_SCORES
from vlmsel_auto.ranking.fusion import standardise
from vlmsel_auto.ranking.ranking import Scores, score_candidates
from vlmsel_auto.ranking.records import Measurement
from vlmsel_auto.ranking.sources import (
    CONSENSUS,
    IMAGE_SIGNALS,
    LABEL_SIGNALS,
    Sources,
    Truth,
    gather,
    image_signal,
    truth_of,
)
from vlmsel_auto.records import FloatArray, IntArray

__all__ = ["RANKINGS", "Case", "replicate_scores"]

_REPLICATES: Final = 20  # simulated test splits


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One target: a column of the library, judged on the candidates whose truth is known."""

    library: Library
    column: int
    rows: IntArray  # candidates with a known truth
    truth: Truth
    shots: int
    form: DcdForm
    seed: int

    @cached_property
    def sources(self) -> Library:
        """The library of these candidates without the target."""
        kept = self.library.select([self.library.candidate_ids[m] for m in self.rows])
        return kept.leave_out(self.library.task_names[self.column])

    @cached_property
    def source_truth(self) -> FloatArray:
        """Accuracies (M, S) on the sources."""
        return truth_of(self.sources, truth=self.truth)

    @cached_property
    def targets(self) -> tuple[Measurement, ...]:
        """What conductance says of each candidate on the target."""
        s = self.column
        return tuple(
            Measurement(
                candidate=self.library.candidate_ids[m],
                activity=self.library.activity[m][s],
                norm_activity=self.library.norm_activity[m][s],
                signature=tuple(one[s] for one in self.library.signature[m]),
                absolute=tuple(one[s] for one in self.library.absolute[m]),
            )
            for m in self.rows
        )

    def gathered(self, *, shots: int, form: DcdForm) -> Sources:
        """The sources as the ranking wants them."""
        return gather(self.sources, self.targets, truth=self.truth, shots=shots, form=form)

    def signal(self, name: str) -> FloatArray | None:
        """A label-free signal (M,) on the target, None if the library lacks it."""
        task = self.library.select_tasks([self.library.task_names[self.column]])
        values = image_signal(task, name, self.rows.tolist())
        return None if values is None or not np.isfinite(values).any() else values[:, 0]

    def evidence(self, name: str) -> list[FloatArray]:
        """A score of the labels on the target, one (M,) a draw."""
        library = self.library
        if self.shots <= 0 or name not in library.evidence_names or not library.shots:
            return []
        k = min(range(len(library.shots)), key=lambda i: abs(np.log(max(library.shots[i], 1) / self.shots)))
        values = library.evidence_draws[self.rows, self.column, :, k, library.evidence_names.index(name)]
        return [draw for draw in values.T if np.isfinite(draw).any()]

    @cached_property
    def fused(self) -> list[Scores]:
        """The fused ranking."""
        return self._fuse(labels=True)

    @cached_property
    def fused_unlabelled(self) -> list[Scores]:
        """The same without labels."""
        return self._fuse(labels=False)

    def _fuse(self, *, labels: bool) -> list[Scores]:
        """Everything fused: one result a draw of the labelled images, one in all without labels, none without data."""
        found = {name: self.signal(name) for name in IMAGE_SIGNALS}
        images = {name: values for name, values in found.items() if values is not None}
        said = {name: self.evidence(name) if labels else [] for name in LABEL_SIGNALS}
        draws = max(len(values) for values in said.values())
        sources = self.gathered(shots=self.shots if draws else 0, form=self.form)
        if not draws and not images and not sources.profiled:
            return []
        return [
            score_candidates(
                measured=images | {name: values[w] for name, values in said.items() if w < len(values)},
                sources=sources,
                n=len(self.rows),
            )
            for w in range(max(draws, 1))
        ]


def _one(score: FloatArray | None) -> list[FloatArray]:
    return [] if score is None or not np.isfinite(score).any() else [score]


def _random(case: Case) -> list[FloatArray]:
    return [np.zeros(len(case.rows))]  # ties are averaged over all orders: the exact expectation


def _average(case: Case) -> list[FloatArray]:
    return [average_rank(case.source_truth)]


def _imagenet(case: Case) -> list[FloatArray]:
    for name in case.sources.task_names:
        if name.lower().replace("-", " ").replace("_", " ").startswith(("imagenet 1k", "imagenet1k")):
            return _one(case.sources.zero_shot[:, case.sources.column(name)])
    return []


def _params(case: Case) -> list[FloatArray]:
    return _one(np.array([np.nan if one.params is None else float(one.params) for one in case.sources.candidates]))


def _flops(case: Case) -> list[FloatArray]:
    return _one(np.array([np.nan if one.flops is None else one.flops for one in case.sources.candidates]))


def _dcd_with(case: Case, form: DcdForm) -> list[FloatArray]:
    sources = case.gathered(shots=0, form=form)
    if not sources.profiled:
        return []
    return _one(score_candidates(measured={}, sources=sources, n=len(case.rows)).dcd)


def _dcd(case: Case) -> list[FloatArray]:
    return _dcd_with(case, case.form)


def _paper(case: Case) -> list[FloatArray]:
    return _dcd_with(case, PAPER)


def _total(case: Case) -> list[FloatArray]:
    return _one(case.library.total[case.rows, case.column])


def _total_calibrated(case: Case) -> list[FloatArray]:
    return _one(calibrated_total(case.library.total[case.rows, case.column], case.sources.total))


def _fused_unlabelled(case: Case) -> list[FloatArray]:
    return [one.score for one in case.fused_unlabelled]


def _fused(case: Case) -> list[FloatArray]:
    return [one.score for one in case.fused]


def _ceiling(case: Case) -> list[FloatArray]:
    target = truth_of(case.library, truth=case.truth)[case.rows, case.column]
    return [source_ceiling(target, case.source_truth)]


def _standardised_gaps(library: Library, m: int) -> FloatArray:
    """Image mean minus text of every class (G, D), each standardised: images within their task, texts over all."""
    text, image = library.class_text[m], library.class_image[m]
    gaps = np.full(text.shape, np.nan)
    z_text = standardise(text)
    for s, part in enumerate(library.class_slices()):
        spread = np.where(library.image_sd[m][s] > 0.0, library.image_sd[m][s], 1.0)
        if np.isfinite(image[part]).all():
            gaps[part] = (image[part] - image[part].mean(axis=0)) / spread - z_text[part]
    return gaps


def _swab(case: Case) -> list[FloatArray]:
    sources, target = case.sources, case.library.class_slices()[case.column]
    ranks = np.argsort(np.argsort(sources.class_accuracy, axis=0), axis=0).astype(np.float64)
    first, second = np.full(len(case.rows), np.nan), np.full(len(case.rows), np.nan)
    for i, m in enumerate(case.rows):
        own, text = sources.class_text[i], case.library.class_text[m][target]
        if own.shape[1] == 0 or not np.isfinite(text).all():
            continue
        gaps = _standardised_gaps(sources, i)
        kept = np.isfinite(gaps).all(axis=1) & np.isfinite(sources.class_accuracy[i])
        kept &= similar_classes(np.nan_to_num(own), text)
        if kept.sum() < 2:  # noqa: PLR2004 - a plan between fewer says nothing
            continue
        mean, spread = own[kept].mean(axis=0), own[kept].std(axis=0)
        first[i] = gap_score(
            class_plan(own[kept], text, kind="exact"),
            source_gaps=gaps[kept],
            target_text=text,
            text_mean=mean,
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


def _evidence(name: str) -> Callable[[Case], list[FloatArray]]:
    return lambda case: case.evidence(name)


def _signal(name: str) -> Callable[[Case], list[FloatArray]]:
    return lambda case: _one(case.signal(name))


RANKINGS: Final[Mapping[str, Callable[[Case], list[FloatArray]]]] = {
    "random": _random,
    "average_rank": _average,
    "imagenet": _imagenet,
    "params": _params,
    "flops": _flops,
    "dcd": _dcd,
    "dcd_paper": _paper,
    "modelgpt": _modelgpt,
    "swab": _swab,
    "conductance_total": _total,
    "conductance_total_calibrated": _total_calibrated,
    "confidence": _signal("confidence"),
    "entropy": _signal("entropy"),
    "lead": _signal("lead_cosine"),
    "consensus": _signal(CONSENSUS),
    "iimm": _signal("iimm"),
    "fused_unlabelled": _fused_unlabelled,
    "zeroshot_fewshot": _evidence("zeroshot"),
    "standing": _evidence("standing"),
    "knn": _evidence("knn"),
    "logme": _evidence("logme"),
    "hscore": _evidence("hscore"),
    "leep": _evidence("leep"),
    "nleep": _evidence("nleep"),
    "logistic": _evidence("logistic"),
    "ridge": _evidence("ridge"),
    "fused": _fused,
    "source_ceiling": _ceiling,
}


def replicate_scores(case: Case, truths: list[FloatArray]) -> list[tuple[FloatArray, FloatArray]]:
    """Pairs of a replicate and the truth that it foretells.

    With several tuning runs: the mean of the others against each. With one figure of zero-shot accuracy: what another
    test split of the same size would have shown, by independent binomial draws. Else nothing.
    """
    if len(truths) > 1:
        stack = np.stack(truths)
        # never as sum less own: rounding would break ties of equal accuracies
        return [(np.delete(stack, r, axis=0).mean(axis=0), stack[r]) for r in range(len(stack))]
    n = case.library.tasks[case.column].n_test
    if case.truth == "tuned" or n <= 0:
        return []
    rng = np.random.default_rng([case.seed, case.column])
    accuracy = np.clip(truths[0], 0.0, 1.0)
    return [(rng.binomial(n, accuracy) / n, accuracy) for _ in range(_REPLICATES)]
