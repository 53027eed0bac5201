"""Ranking of candidates on a target task: source tasks (DCD prior), unlabelled images and few labels, fused.

Three kinds of signals, all standardised over candidates within a task:
    library     accuracies on source tasks, averaged plainly ("average") and weighted by DCD ("dcd");
    images      what the target's unlabelled images and class names say (`library_signals.label_free_signals`);
    labels      what its few labelled images say (`library_signals.evidence_scores`).
Weights are learned on the library's own tasks, each taken as a target in turn, at the number of labels a class that
the target has (`fusion`). No signal that is used depends on a model's logit scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from vlmsel_auto.divergence import DEFAULT, DcdForm, dcd, pairwise_dcd, pool, source_weights
from vlmsel_auto.errors import InputError
from vlmsel_auto.fusion import Fusion, fit_fusion, fixed_fusion, fuse, places, standardise
from vlmsel_auto.library_records import Library
from vlmsel_auto.library_signals import SLOW_EVIDENCE, evidence_scores, label_free_signals
from vlmsel_auto.ranking_records import TargetSignals
from vlmsel_auto.records import Basis, FloatArray, IntArray, Interval, RankedCandidate, Ranking

__all__ = ["IMAGE_SIGNALS", "LABEL_SIGNALS", "LIBRARY_SIGNALS", "dcd_prior", "rank_candidates", "truth_of"]

Truth = Literal["tuned", "zero_shot"]

LIBRARY_SIGNALS: Final = ("average", "dcd")
IMAGE_SIGNALS: Final = ("lead_cosine", "margin_cosine", "margin_spread", "lead_spread", "total_cosine")
LABEL_SIGNALS: Final = ("zeroshot", "standing", "knn", "knn1", "logme", "hscore", "ridge", "ridge_text", "leep")

# without a library: equal shares, the labels' three times the images', and errors as seen on the mini zoo
_FIXED_IMAGES: Final = 0.15
_FIXED_LABELS: Final = 0.10
_FIXED_SD: Final = 0.75
_MIN_SOURCES: Final = 3
_MIN_ROWS: Final = 4  # candidates that a source must know to say anything of their order
_PUBLISHED: Final = 0.3  # weight of published zero-shot figures, standard units; our own choice
_UNKNOWN_SD: Final = 1.0  # nothing known: as wide as candidates differ


def truth_of(library: Library, *, truth: Truth) -> FloatArray:
    """Accuracies (M, S) that rankings are to foretell: tuned where known, else probed, else zero-shot, task by task.

    Args:
        library: source tasks.
        truth: "zero_shot" takes the zero-shot accuracies whatever else is known.

    Returns:
        (M, S); a column holds figures of one kind only.
    """
    if truth == "zero_shot":
        return library.zero_shot
    result = library.zero_shot.copy()
    for better in (library.probed, library.tuned):
        enough = np.isfinite(better).sum(axis=0) >= np.maximum(
            _MIN_ROWS, np.isfinite(library.zero_shot).sum(axis=0) / 2
        )
        result[:, enough] = better[:, enough]
    return result


def _weighted(weights: FloatArray, truth: FloatArray) -> FloatArray:
    """Mean (M,) of standardised source truths (M, S) with weights (M, S), over the known ones; NaN where none is."""
    known = np.isfinite(truth)
    z = standardise(truth)
    mass = np.where(known, weights, 0.0)
    total = mass.sum(axis=1)
    return np.where(total > 0.0, (mass * z).sum(axis=1) / np.where(total > 0.0, total, 1.0), np.nan)


def dcd_prior(
    divergences: FloatArray, truth: FloatArray, *, form: DcdForm, common: FloatArray | None = None
) -> FloatArray:
    """Source accuracies weighted by DCD: the prior score of every candidate.

    Args:
        divergences: (M, S) DCD of the target to the sources, NaN where unknown.
        truth: (M, S) accuracies on the sources, NaN where unknown.
        form: pooling and temperature.
        common: (S,) True for sources that may be used; None: all.

    Returns:
        (M,) weighted mean of accuracies standardised within each source; NaN for candidates without any.
    """
    if common is not None:
        divergences, truth = divergences[:, common], truth[:, common]
    return _weighted(source_weights(pool(divergences, share=form.pooled), temperature=form.weight_temperature), truth)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Known:
    """What the library says of the listed candidates; rows of unknown candidates are NaN."""

    truth: FloatArray  # (M, S)
    pairwise: FloatArray  # (M, S, S)
    to_target: FloatArray  # (M, S)
    signals: Mapping[str, FloatArray]  # name -> (M, S), labels' evidence (M, S, draws)
    shots: int  # labels a class of the library's evidence; 0: none


def _activity(library: Library, form: DcdForm) -> tuple[FloatArray, ...]:
    return library.activity if form.scalar == "margin" else library.norm_activity


def _divergences(
    library: Library, rows: Sequence[int | None], targets: Sequence[TargetSignals], form: DcdForm
) -> tuple[FloatArray, FloatArray]:
    n_tasks = len(library.tasks)
    pairwise = np.full((len(rows), n_tasks, n_tasks), np.nan)
    to_target = np.full((len(rows), n_tasks), np.nan)
    for i, (row, target) in enumerate(zip(rows, targets, strict=True)):
        if row is None:
            continue
        activity = _activity(library, form)[row]
        if activity.shape[1] == 0:
            continue
        signature = library.absolute[row] if form.delta == "channels" else library.signature[row]
        pairwise[i] = pairwise_dcd(activity=activity, signature=signature, form=form)
        own = target.activity if form.scalar == "margin" else target.norm_activity
        if own.shape == activity.shape[1:]:
            to_target[i] = dcd(
                target_activity=own,
                source_activity=activity,
                target_signature=target.absolute if form.delta == "channels" else target.signature,
                source_signature=signature,
                form=form,
            )
    return pairwise, to_target


def _nearest_shots(library: Library, shots: int) -> int | None:
    """Index of the library's evidence whose labels a class are nearest to ``shots``, on a logarithmic scale."""
    filled = [k for k in range(len(library.shots)) if np.isfinite(library.evidence_draws[:, :, :, k]).any()]
    if not filled or shots <= 0:
        return None
    return min(filled, key=lambda k: abs(np.log(max(library.shots[k], 1) / shots)))


def _rows_of(values: FloatArray, rows: Sequence[int | None]) -> FloatArray:
    """Rows of (M_library, ...) in the order of the targets, NaN for unknown candidates."""
    return np.stack([np.full(values.shape[1:], np.nan) if row is None else values[row] for row in rows])


def _gather(library: Library, targets: Sequence[TargetSignals], *, truth: Truth, shots: int, form: DcdForm) -> _Known:
    ids = {one: m for m, one in enumerate(library.candidate_ids)}
    rows = [ids.get(target.candidate) for target in targets]
    accuracies = _rows_of(truth_of(library, truth=truth), rows)
    accuracies[:, np.isfinite(accuracies).sum(axis=0) < min(_MIN_ROWS, len(rows))] = np.nan
    pairwise, to_target = _divergences(library, rows, targets, form)
    signals: dict[str, FloatArray] = {
        name: _rows_of(library.signals[:, :, library.signal_names.index(name)], rows)
        for name in IMAGE_SIGNALS
        if name in library.signal_names
    }
    k = _nearest_shots(library, shots)
    if k is not None:
        for name in LABEL_SIGNALS:
            if name in library.evidence_names:
                values = library.evidence_draws[:, :, :, k, library.evidence_names.index(name)]
                if np.isfinite(values).any():
                    signals[name] = _rows_of(values, rows)
    return _Known(
        truth=accuracies,
        pairwise=pairwise,
        to_target=to_target,
        signals=signals,
        shots=0 if k is None else library.shots[k],
    )


def _source_priors(known: _Known, form: DcdForm) -> dict[str, FloatArray]:
    """The library signals (M, S) of every source task taken as a target of the others."""
    n_tasks = known.truth.shape[1]
    columns: dict[str, list[FloatArray]] = {name: [] for name in LIBRARY_SIGNALS}
    for s in range(n_tasks):
        rest = np.arange(n_tasks) != s
        columns["average"].append(_weighted(np.ones((len(known.truth), n_tasks - 1)), known.truth[:, rest]))
        columns["dcd"].append(dcd_prior(known.pairwise[:, s], known.truth, form=form, common=rest))
    return {name: np.stack(values, axis=1) for name, values in columns.items()}


def _target_priors(known: _Known, form: DcdForm) -> dict[str, FloatArray]:
    return {
        "average": _weighted(np.ones_like(known.truth), known.truth),
        "dcd": dcd_prior(known.to_target, known.truth, form=form),
    }


def _measured(targets: Sequence[TargetSignals], labels: IntArray | None, seed: int) -> dict[str, FloatArray]:
    """Image and label signals (M,) of the target, NaN where a candidate was not embedded."""
    rows: list[dict[str, float]] = []
    for target in targets:
        row: dict[str, float] = {}
        if target.features.size and target.text_features.size:
            baseline = target.baseline if target.baseline.size else np.zeros(target.features.shape[1])
            row |= label_free_signals(
                target.features, target.text_features, baseline=baseline, logit_scale=target.logit_scale
            )
            if labels is not None and len(labels):
                row |= evidence_scores(
                    target.features, labels, target.text_features, leave_out=SLOW_EVIDENCE, seed=seed
                )
        rows.append(row)
    names = [*IMAGE_SIGNALS, *(LABEL_SIGNALS if labels is not None else ())]
    table = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
    return {name: values for name, values in table.items() if np.isfinite(values).any()}


def _fit(known: _Known | None, names: Sequence[str], priors: Mapping[str, FloatArray]) -> Fusion:
    """Weights of these signals: learned where the library has enough sources, else fixed."""
    if known is not None:
        have = {name: values for name, values in {**known.signals, **priors}.items() if name in names}
        fusion = fit_fusion(have, known.truth)
        if fusion.sources >= _MIN_SOURCES and any(weight > 0.0 for weight in fusion.weights.values()):
            return fusion
    shares = dict.fromkeys((name for name in names if name in IMAGE_SIGNALS), _FIXED_IMAGES)
    shares |= dict.fromkeys((name for name in names if name in LABEL_SIGNALS), _FIXED_LABELS)
    shares |= dict.fromkeys((name for name in names if name in LIBRARY_SIGNALS), _FIXED_IMAGES)
    return fixed_fusion(shares, sd=_FIXED_SD)


def _basis(*, library: bool, labels: bool, images: bool, published: bool) -> Basis:
    if library:
        return "library and labels" if labels else "library"
    if labels:
        return "labels"
    if images:
        return "unlabelled images"
    return "published figures" if published else "no signal"


def _shots(labels: IntArray | None) -> int:
    """Labels a class: the median over the classes that have any; 0 without labels."""
    if labels is None or len(labels) == 0:
        return 0
    count = np.bincount(np.asarray(labels, dtype=np.int64))
    return max(1, int(np.median(count[count > 0])))


def rank_candidates(
    *,
    task: str,
    targets: Sequence[TargetSignals],
    labels: IntArray | None = None,
    library: Library | None = None,
    truth: Truth = "tuned",
    form: DcdForm = DEFAULT,
    failures: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Ranking:
    """Rank candidates on a task by everything that is known.

    Args:
        task: name of the target task; a source of that name in the library is left out.
        targets: one record a candidate.
        labels: (n,) classes of the rows of every ``features``, or None for a ranking without labels.
        library: source tasks, or None.
        truth: what to foretell: accuracy after tuning, or zero-shot accuracy.
        form: member of the DCD family.
        failures: candidates that could not be looked at, passed through to the ranking.
        seed: of the simulated orders behind probabilities and intervals.

    Returns:
        The ranking, best first; ties go by candidate id. ``score`` is in standard deviations over the listed
        candidates; intervals and probabilities come from the errors that leaving out one source task at a time shows.

    Raises:
        InputError: no candidates, one twice, or features and labels that do not fit.
    """
    ids = [target.candidate for target in targets]
    if not ids or len(set(ids)) != len(ids):
        raise InputError(f"targets must name at least one candidate, each once, but got {ids}")
    for target in targets:
        if labels is not None and target.features.size and len(target.features) != len(labels):
            raise InputError(
                f"labels must belong to the rows of every candidate's features, but got {len(labels)} labels and "
                f"{len(target.features)} rows of {target.candidate}"
            )
    m, shots = len(ids), _shots(labels)
    if library is not None and task in library.task_names:
        library = library.leave_out(task)
    known = None
    if library is not None and len(library.tasks):
        known = _gather(library, targets, truth=truth, shots=shots, form=form)
    measured = _measured(targets, labels if shots else None, seed)
    source_priors = _source_priors(known, form) if known is not None else {}
    target_priors = _target_priors(known, form) if known is not None else {}
    in_library = np.isfinite(target_priors.get("average", np.full(m, np.nan)))
    target_signals = {**measured, **target_priors}

    images = [name for name in IMAGE_SIGNALS if name in measured]
    said = [name for name in LABEL_SIGNALS if name in measured]
    prior_names = [*(LIBRARY_SIGNALS if in_library.any() else ()), *images]
    everything = _fit(known, [*prior_names, *said], source_priors)
    without_library = _fit(known, [*images, *said], {})
    prior = _fit(known, prior_names, source_priors)
    evidence = _fit(known, said, {})

    has_images = np.array([target.features.size > 0 and target.text_features.size > 0 for target in targets])
    published = np.array([np.nan if target.published is None else target.published for target in targets])
    score = np.where(
        in_library, fuse(everything, target_signals, n=m), fuse(without_library, target_signals, n=m)
    ) + np.where(in_library, 0.0, _PUBLISHED * standardise(published))
    sd = np.where(in_library, everything.sd, np.maximum(without_library.sd, everything.sd))
    sd = np.where(in_library | has_images, sd, _UNKNOWN_SD)
    stands = places(score, sd, seed=seed)
    prior_score = fuse(prior, target_signals, n=m)
    evidence_score = fuse(evidence, target_signals, n=m)
    lines = [
        RankedCandidate(
            candidate=ids[i],
            score=float(score[i]),
            sd=float(sd[i]),
            prior=float(prior_score[i]) if in_library[i] else None,
            evidence=float(evidence_score[i]) if said and has_images[i] else None,
            p_best=float(stands.p_best[i]),
            p_top5=float(stands.p_top5[i]),
            rank_interval=Interval(low=float(stands.low[i]), high=float(stands.high[i])),
            basis=_basis(
                library=bool(in_library[i]),
                labels=bool(said) and bool(has_images[i]),
                images=bool(has_images[i]),
                published=bool(np.isfinite(published[i])),
            ),
            signals={
                name: float(values[i]) for name, values in sorted(target_signals.items()) if np.isfinite(values[i])
            },
        )
        for i in sorted(range(m), key=lambda i: (-score[i], ids[i]))
    ]
    return Ranking(
        task=task,
        ranked=tuple(lines),
        failures=dict(failures or {}),
        notes=_notes(known, everything, shots=shots, truth=truth, in_library=int(in_library.sum()), m=m),
    )


def _notes(
    known: _Known | None, fusion: Fusion, *, shots: int, truth: Truth, in_library: int, m: int
) -> tuple[str, ...]:
    total = sum(fusion.weights.values()) or 1.0
    kinds = (("source tasks", LIBRARY_SIGNALS), ("unlabelled images", IMAGE_SIGNALS), ("labels", LABEL_SIGNALS))
    trust = [f"{sum(fusion.weights.get(name, 0.0) for name in names) / total:.0%} {kind}" for kind, names in kinds]
    seen = f"{shots} labels a class" if shots else "no labels"
    notes = [f"trust: {', '.join(trust)} ({seen})"]
    if known is None:
        notes.append("no library of source tasks: weights are fixed, probabilities are rough")
        return tuple(notes)
    what = "accuracy after tuning" if truth == "tuned" else "zero-shot accuracy"
    usable = int((np.isfinite(known.truth).sum(axis=0) > 1).sum())
    notes.append(f"weights learned on {usable} source tasks ({what})")
    notes.append(f"{in_library} of {m} candidates are in the library")
    if known.shots and known.shots != shots:
        notes.append(f"weights are those of {known.shots} labels a class, the nearest that the library has")
    if in_library and not np.isfinite(known.to_target).any():
        notes.append("no conductance profiles: source tasks count alike")
    return tuple(notes)
