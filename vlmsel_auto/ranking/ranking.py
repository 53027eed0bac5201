"""Ranking of candidates on a target task: source tasks, unlabelled images and few labels, fused.

Three kinds of signals, all standardised over candidates within a task:
    labels      what the target's few labelled images say (`signals.evidence_scores`);
    images      what its unlabelled images and class names say (`signals.label_free_signals`);
    sources     how each candidate did on the library's tasks beyond what such signals predicted there; sources that
                conductance finds close to the target (DCD) count more.
Everything is learned on the library's own tasks, each taken as a target in turn, at the number of labels a class that
the target has (`fusion`). No signal that is used depends on a model's logit scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.errors import InputError
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.evidence.alignment import alignment, nearest
from vlmsel_auto.ranking.evidence.consensus import consensus, likeness
from vlmsel_auto.ranking.forecast import Forecast, in_standard_units
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.scores import Scores, score_candidates
from vlmsel_auto.ranking.signals import (
    ALIGNMENT,
    CONSENSUS,
    LABEL_SIGNALS,
    TOP2_MARGIN,
    evidence_scores,
    label_free_signals,
)
from vlmsel_auto.ranking.sources import Sources, Truth, gather, image_signals
from vlmsel_auto.ranks import simulate_ranks
from vlmsel_auto.records import Basis, FloatArray, IntArray, Interval, RankedCandidate, Ranking

_ENOUGH_SOURCES: Final = 5  # of a candidate: with fewer the forecast places it, where others were not screened
_UNKNOWN_SD: Final = 1.0  # nothing known: as wide as candidates differ


def _measured(targets: Sequence[Measurement], labels: IntArray | None, *, truth: Truth) -> dict[str, FloatArray]:
    """Image and label signals (M,) of the target, NaN where a candidate was not embedded."""
    seen = {i: one for i, target in enumerate(targets) if (one := target.embedded_whole()) is not None}
    known = {i: target.embedded(labels) for i, target in enumerate(targets)} if labels is not None else {}
    table = {name: np.full(len(targets), np.nan) for name in (*image_signals(truth), *LABEL_SIGNALS)}
    for i, one in seen.items():
        few = known.get(i)
        for name, value in (label_free_signals(one) | ({} if few is None else evidence_scores(few))).items():
            table[name][i] = value
    speaking = {i: one for i, one in seen.items() if one.texts.size}
    if speaking:
        there, named = list(speaking), np.stack([one.predicted for one in speaking.values()])
        n_classes = len(targets[there[0]].text_features)
        alike = likeness([one.cosine for one in speaking.values()])
        table[CONSENSUS][there] = consensus(named, table[TOP2_MARGIN][there], n_classes=n_classes, alike=alike)
    if seen and ALIGNMENT in table:
        there = list(seen)
        kin = np.eye(len(targets))  # who has no text tower is kin to nobody
        if speaking:
            kin[np.ix_(list(speaking), list(speaking))] = alike
        neighbours = [nearest(one.features) for one in seen.values()]
        table[ALIGNMENT][there] = alignment(neighbours, table[TOP2_MARGIN][there], alike=kin[np.ix_(there, there)])
    return {name: values for name, values in table.items() if np.isfinite(values).any()}


def _shots(labels: IntArray | None) -> int:
    """Labels a class: the median over the classes that have any; 0 without labels."""
    if labels is None or len(labels) == 0:
        return 0
    count = np.bincount(labels)
    return max(1, int(np.median(count[count > 0])))


def _check(targets: Sequence[Measurement], labels: IntArray | None) -> None:
    ids = [target.candidate for target in targets]
    if not ids or len(set(ids)) != len(ids):
        raise InputError(f"targets must name at least one candidate, each once, but got {ids}")
    for target in targets:
        if labels is not None and target.features.size and len(target.features) != len(labels):
            raise InputError(
                f"labels must belong to the rows of every candidate's features, but got {len(labels)} labels and "
                f"{len(target.features)} rows of {target.candidate}"
            )
    seen = [one for one in targets if one.features.size]
    classes = max((len(one.text_features) for one in seen), default=0)  # who has no text tower has none
    shapes = {(len(one.features) + len(one.others), len(one.text_features) or classes) for one in seen}
    if len(shapes) > 1:
        raise InputError(
            f"every candidate's features must be of the same images, and its texts of the same classes, but got "
            f"{', '.join(f'{n} images and {k} classes' for n, k in sorted(shapes))}"
        )


def rank_candidates(
    *,
    task: str,
    targets: Sequence[Measurement],
    labels: IntArray | None = None,
    library: Library | None = None,
    truth: Truth = "tuned",
    forecast: Forecast | None = None,
    correlation: FloatArray | None = None,
    seed: int = 0,
) -> Ranking:
    """Rank candidates on a task by everything that is known.

    Args:
        task: name of the target task; sources that may be it are left out (`SourceTask.may_be`).
        targets: one record a candidate.
        labels: (n,) classes of the rows of every ``features``, or None for a ranking without labels.
        library: source tasks, or None.
        truth: what to predict: accuracy after tuning, or zero-shot accuracy.
        forecast: of the targets, for those that the library does not know; None: they are ranked by their signals.
        correlation: (M, M) of the errors of the targets' scores, see `ranks.error_correlation`; None: independent.
        seed: of the simulated orders behind probabilities and intervals.

    Returns:
        The ranking, best first; ties go by candidate id. ``score`` is in standard deviations over the listed
        candidates; intervals and probabilities come from the errors that leaving out one source task at a time shows.

    Raises:
        InputError: no candidates, one twice, or features and labels that do not fit.
        ValueError: a forecast of another number of candidates.
    """
    _check(targets, labels)
    m, shots = len(targets), _shots(labels)
    if forecast is not None and len(forecast.mean) != m:
        raise ValueError(f"the forecast must be of {m} candidates, but got {len(forecast.mean)}")
    library = None if library is None else library.leave_out(name=task)
    sources = None
    if library is not None and len(library.tasks):
        sources = gather(library, targets, truth=truth, shots=shots)
        sources = sources if sources.known.any() else None
    measured = _measured(targets, labels if shots else None, truth=truth)
    scores = score_candidates(measured=measured, sources=sources, n=m)
    labelled = bool(shots) and any(name in measured for name in LABEL_SIGNALS)
    placed = _placed(targets, scores, sources=sources, forecast=forecast, labelled=labelled)
    errors = np.outer(placed.sd, placed.sd) * (np.eye(m) if correlation is None else correlation)
    chances = simulate_ranks(placed.score, errors, seed=seed)
    raw = {**measured, "average": scores.average, "dcd": scores.dcd}
    ids = [target.candidate for target in targets]
    lines = [
        RankedCandidate(
            candidate=ids[i],
            score=float(placed.score[i]),
            sd=float(placed.sd[i]),
            prior=float(scores.prior[i]) if placed.in_library[i] else None,
            evidence=float(scores.evidence[i]) if labelled and placed.embedded[i] else None,
            p_best=float(chances.p_best[i]),
            p_top5=float(chances.p_top5[i]),
            rank_interval=Interval(low=float(chances.low[i]), high=float(chances.high[i])),
            basis=placed.basis(i),
            signals={name: float(values[i]) for name, values in sorted(raw.items()) if np.isfinite(values[i])},
        )
        for i in sorted(range(m), key=lambda i: (-placed.score[i], ids[i]))
    ]
    return Ranking(
        task=task,
        ranked=tuple(lines),
        notes=_notes(sources, scores, shots=shots, truth=truth, in_library=placed.in_library),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Placed:
    """Scores (M,) of the candidates in standard units, and what each rests on."""

    score: FloatArray
    sd: FloatArray
    in_library: NDArray[np.bool_]
    embedded: NDArray[np.bool_]
    published: NDArray[np.bool_]
    labelled: bool

    def basis(self, i: int) -> Basis:
        """What the score of candidate i rests on."""
        labels = self.labelled and self.embedded[i]
        if self.in_library[i]:
            return Basis.LIBRARY_AND_LABELS if labels else Basis.LIBRARY
        if self.embedded[i]:
            return Basis.LABELS if labels else Basis.IMAGES
        return Basis.PUBLISHED if self.published[i] else Basis.NOTHING


def _placed(
    targets: Sequence[Measurement],
    scores: Scores,
    *,
    sources: Sources | None,
    forecast: Forecast | None,
    labelled: bool,
) -> _Placed:
    """Candidates of the library by their scores, others by the forecast, or by their signals where there is none."""
    in_library = np.isfinite(scores.average)
    embedded = np.array([target.features.size > 0 for target in targets])
    score, sd = scores.score, np.where(in_library | embedded, scores.sd, _UNKNOWN_SD)
    published = np.zeros(len(targets), dtype=np.bool_)
    if forecast is not None:
        if sources is not None and not forecast.screened.all():
            # next to others that only the forecast places; it has the few outcomes of own searches in it
            in_library &= np.isfinite(sources.truth).sum(axis=1) >= _ENOUGH_SOURCES
        foreseen, foreseen_sd = in_standard_units(forecast, score if embedded.any() else None, news=not labelled)
        score, sd = np.where(in_library, score, foreseen), np.where(in_library, sd, foreseen_sd)
        published = forecast.published
    return _Placed(score=score, sd=sd, in_library=in_library, embedded=embedded, published=published, labelled=labelled)


def _notes(
    sources: Sources | None, scores: Scores, *, shots: int, truth: Truth, in_library: NDArray[np.bool_]
) -> tuple[str, ...]:
    seen = f"{shots} labels a class" if shots else "no labels"
    notes = [f"trust: {', '.join(f'{share:.0%} {kind}' for kind, share in scores.trust.items())} ({seen})"]
    if sources is None:
        notes.append("no library of source tasks: weights are fixed, probabilities are rough")
        return tuple(notes)
    what = "accuracy after tuning" if truth == "tuned" else "zero-shot accuracy"
    learned = f"learned on {scores.sources} source tasks ({what})" if scores.sources else "fixed: too few source tasks"
    notes.append(f"weights {learned}")
    notes.append(f"{in_library.sum()} of {len(in_library)} candidates are in the library")
    if sources.shots and sources.shots != shots:
        notes.append(f"weights are those of {sources.shots} labels a class, the nearest that the library has")
    if not sources.profiled:
        notes.append("no conductance profiles: source tasks count alike")
    return tuple(notes)
