"""What a library says of the listed candidates, as arrays in their order: truths, signals, similarities of sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.library.records import Library, known_neighbours
from vlmsel_auto.ranking.dcd import dcd
from vlmsel_auto.ranking.divergence import (
    Divergence,
    Weighting,
    divergences,
    source_weights,
    with_mean_of_others,
)
from vlmsel_auto.ranking.evidence.alignment import alignment
from vlmsel_auto.ranking.evidence.consensus import consensus
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.scaling import known_mean
from vlmsel_auto.ranking.signals import ALIGNMENT, CONSENSUS, IMAGE_SIGNALS, LABEL_SIGNALS, TOP2_MARGIN
from vlmsel_auto.records import FloatArray, IntArray

Truth = Literal["tuned", "zero_shot"]
_Compare = Callable[[Library, Sequence[int], int, FloatArray], FloatArray]

DEFAULT_WEIGHTING: Final = Weighting()
_MIN_RELIABILITY: Final = 0.05  # a source never counts for nothing
_MIN_TRAINED: Final = 3  # tasks with accuracies after training that do without those of others before it
_MIN_ROWS: Final = 4  # candidates that a source must know to say anything of their order


@dataclass(frozen=True, kw_only=True, eq=False)
class Sources:
    """The library in the order of the M listed candidates; rows of candidates that it does not know are NaN."""

    truth: FloatArray  # (M, S) accuracies to predict
    signals: Mapping[str, FloatArray]  # name -> (M, S) of unlabelled images, (M, S, W) of W draws of labels
    similarity: FloatArray  # (M, S, S) [m, t, s]: weight of source s when source t is the target
    to_target: FloatArray  # (M, S) weight of source s for the target
    alone: FloatArray  # (M, S) the same for a ranking by source accuracies alone: sharper
    profiled: bool  # whether any similarity to the target comes from conductance; else sources count alike
    shots: int  # labels a class behind the labels' signals; 0: none
    reliability: FloatArray  # (S,) share of what sets candidates apart on a source that is no sampling noise

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether (M,) a candidate has a truth on any source."""
        return np.asarray(np.isfinite(self.truth).any(axis=1))


def truth_of(library: Library, *, truth: Truth) -> FloatArray:
    """Accuracies (M, S) that rankings are to predict: tuned where known, else probed, else zero-shot, task by task.

    A column holds figures of one kind only; ``truth`` "zero_shot" takes these whatever else is known.
    """
    if truth == "zero_shot":
        return library.zero_shot
    result = library.zero_shot.copy()
    for better in (library.probed, library.tuned):
        enough = _enough(library, better)
        result[:, enough] = better[:, enough]
    return result


def _enough(library: Library, better: FloatArray) -> NDArray[np.bool_]:
    """Whether (S,) so many candidates have one of these accuracies that a column is made of them."""
    least = np.maximum(_MIN_ROWS, np.isfinite(library.zero_shot).sum(axis=0) / 2)
    return np.asarray(np.isfinite(better).sum(axis=0) >= least)


def _trained(library: Library) -> NDArray[np.bool_]:
    """Whether (S,) tuned truth of a task is of accuracies after training."""
    return _enough(library, library.probed) | _enough(library, library.tuned)


def source_truth(library: Library, candidates: Sequence[str], *, truth: Truth) -> FloatArray:
    """Accuracies (M, S) of the listed candidates that a ranking learns from, NaN where it does not.

    Where three tasks or more have accuracies after training, zero-shot ones of other tasks are left out: another kind
    of truth teaches other weights, and a search knows them by the very images that its scores of labels come from.
    """
    found = _rows_of(truth_of(library, truth=truth), _places(library, candidates))
    found[:, np.isfinite(found).sum(axis=0) < min(_MIN_ROWS, len(candidates))] = np.nan
    if truth == "tuned":
        trained = _trained(library)
        if (trained & np.isfinite(found).any(axis=0)).sum() >= _MIN_TRAINED:
            found[:, ~trained] = np.nan
    return found


def _places(library: Library, candidates: Sequence[str]) -> list[int | None]:
    ids = {one: m for m, one in enumerate(library.candidate_ids)}
    return [ids.get(one) for one in candidates]


def images_behind(library: Library, *, truth: Truth) -> IntArray:
    """(S,) images that the accuracies of `source_truth` were measured on; 0: unknown."""
    counts = [
        one.n_test if one.zero_shot_images is None or (truth == "tuned" and has) else one.zero_shot_images
        for one, has in zip(library.tasks, _trained(library), strict=True)
    ]
    return np.array(counts, dtype=np.int64)


def reliability(truth: FloatArray, n_test: IntArray) -> FloatArray:
    """How much of the variance between candidates is more than sampling noise would give.

    On a task where all candidates stand at chance their order is an accident of the test split, and weights must not
    be learned from it.

    Args:
        truth: (M, S) accuracies in [0, 1], NaN where unknown.
        n_test: (S,) images behind the accuracies; 0 or less: unknown, counted as exact.

    Returns:
        (S,) 1 - noise variance / variance, in [.05, 1]; the noise is binomial at the mean accuracy.
    """
    mean = known_mean(truth, axis=0)[0]
    variance = known_mean((truth - mean) ** 2, axis=0)[0]
    noise = np.where(n_test > 0, mean * (1.0 - mean) / np.maximum(n_test, 1), 0.0)
    share = 1.0 - noise / np.where(variance > 0.0, variance, 1.0)
    return np.asarray(np.clip(np.where(variance > 0.0, share, 0.0), _MIN_RELIABILITY, 1.0), dtype=np.float64)


def _divergences(
    library: Library, targets: Sequence[Measurement], rows: Sequence[int | None], divergence: Divergence
) -> tuple[FloatArray, FloatArray]:
    """Divergences between sources (M, S, S) and of the target from the sources (M, S), NaN without a profile."""
    n_tasks = len(library.tasks)
    pairwise = np.full((len(targets), n_tasks, n_tasks), np.nan)
    to_target = np.full((len(targets), n_tasks), np.nan)
    for i, (one, row) in enumerate(zip(targets, rows, strict=True)):
        if row is None:
            continue
        sources = library.activity[row]
        pairwise[i] = divergences(divergence, sources, sources, leave_out_own=True)
        if one.activity.size == sources.shape[1]:
            to_target[i] = divergences(divergence, one.activity[None], sources)[0]
    return pairwise, to_target


def _unknown_at_mean(divergence: FloatArray) -> FloatArray:
    """Divergences (..., S) in which a source without a profile is as far as the others are on average.

    A weight of 0 would take whatever it taught away as soon as any other source has a profile.
    """
    return np.where(np.isfinite(divergence), divergence, known_mean(divergence, axis=-1))


def nearest_shots(library: Library, shots: int, *, rows: Sequence[int] | None = None) -> int | None:
    """Index of the library's evidence whose labels a class are nearest to ``shots``, on a logarithmic scale.

    With ``rows`` the evidence of these candidates counts only.
    """
    evidence = library.evidence_draws if rows is None else library.evidence_draws[list(rows)]
    filled = [k for k in range(len(library.shots)) if np.isfinite(evidence[:, :, :, k]).any()]
    if not filled or shots <= 0:
        return None
    return min(filled, key=lambda k: abs(np.log(max(library.shots[k], 1) / shots)))


def _rows_of(values: FloatArray, rows: Sequence[int | None]) -> FloatArray:
    """Rows of (M_library, ...) in the order of the targets, NaN for unknown candidates."""
    return np.stack([np.full(values.shape[1:], np.nan) if row is None else values[row] for row in rows])


def image_signals(truth: Truth) -> tuple[str, ...]:
    """Names of the label-free signals that predict this truth: of zero-shot accuracy, alignment tells nothing more."""
    return tuple(name for name in IMAGE_SIGNALS if truth == "tuned" or name != ALIGNMENT)


def image_signal(library: Library, name: str, rows: Sequence[int | None]) -> FloatArray | None:
    """A label-free signal (M, S) of the listed candidates on every task; None where the library lacks it.

    ``rows`` (M,) is each candidate's place in the library, None for those that it does not know.
    """
    if name in _COMPARISONS:
        compare, seen_by = _COMPARISONS[name]
        on = _rows_of(seen_by(library), rows)
        if not np.isfinite(on).any() or TOP2_MARGIN not in library.signal_names:
            return None
        margins = _rows_of(library.signals[:, :, library.signal_names.index(TOP2_MARGIN)], rows)
        found = np.full(on.shape, np.nan)
        for s in range(len(library.tasks)):
            for number in np.unique(on[np.isfinite(on[:, s]), s]):
                same = on[:, s] == number  # those that saw the same images
                places = [row for row, one in zip(rows, same, strict=True) if one and row is not None]
                found[same, s] = compare(library, places, s, margins[same, s])
        return found
    if name not in library.signal_names:
        return None
    return _rows_of(library.signals[:, :, library.signal_names.index(name)], rows)


def _consensus(library: Library, rows: Sequence[int], column: int, margins: FloatArray) -> FloatArray:
    """`consensus` (m,) of these rows of a library, which saw the same images of the task."""
    predicted = library.predicted[rows, column]
    known = np.isfinite(predicted).all(axis=0)
    return consensus(predicted[:, known].astype(np.int64), margins, n_classes=library.tasks[column].n_classes)


def _alignment(library: Library, rows: Sequence[int], column: int, margins: FloatArray) -> FloatArray:
    """`alignment` (m,) likewise."""
    neighbours = [known_neighbours(library.neighbours[row, column]).astype(np.int64) for row in rows]
    return alignment(neighbours, margins)


# signals of candidates that are compared with each other: the definition, and which images they saw
_COMPARISONS: Final[Mapping[str, tuple[_Compare, Callable[[Library], FloatArray]]]] = {
    CONSENSUS: (_consensus, lambda library: library.predicted_on),
    ALIGNMENT: (_alignment, lambda library: library.neighbours_on),
}


def gather(
    library: Library,
    targets: Sequence[Measurement],
    *,
    truth: Truth,
    shots: int,
    divergence: Divergence = dcd,
    weighting: Weighting = DEFAULT_WEIGHTING,
) -> Sources:
    """Arrange a library for a target.

    Args:
        library: source tasks; the target must not be one of them.
        targets: the listed candidates with their profiles on the target.
        truth: what is to be predicted.
        shots: labels a class that the target has; 0: none.
        divergence: compares the target with the sources.
        weighting: how divergences become weights of the sources.

    Returns:
        The arrays, in the order of ``targets``.
    """
    listed = [target.candidate for target in targets]
    rows = _places(library, listed)
    accuracies = source_truth(library, listed, truth=truth)
    pairwise, to_target = _divergences(library, targets, rows, divergence)
    own = np.eye(len(library.tasks), dtype=np.bool_)
    between = np.where(own, np.nan, _unknown_at_mean(with_mean_of_others(pairwise)))
    near = _unknown_at_mean(with_mean_of_others(to_target))
    similarity = source_weights(between, temperature=weighting.effects)
    similarity[:, own] = 0.0
    shown = {name: image_signal(library, name, rows) for name in image_signals(truth)}
    signals = {name: values for name, values in shown.items() if values is not None}
    k = nearest_shots(library, shots, rows=[row for row in rows if row is not None])
    if k is not None:
        for name in LABEL_SIGNALS:
            if name in library.evidence_names:
                values = library.evidence_draws[:, :, :, k, library.evidence_names.index(name)]
                if np.isfinite(values).any():
                    signals[name] = _rows_of(values, rows)
    return Sources(
        truth=accuracies,
        signals=signals,
        similarity=similarity,
        to_target=source_weights(near, temperature=weighting.effects),
        alone=source_weights(near, temperature=weighting.alone),
        profiled=bool(np.isfinite(to_target).any()),
        shots=0 if k is None else library.shots[k],
        reliability=reliability(accuracies, images_behind(library, truth=truth)),
    )
