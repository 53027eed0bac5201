"""A library of source tasks: what is known of every candidate on every task, missing values as NaN.

Shapes: M candidates, S source tasks, B visual blocks of a candidate. Accuracies lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.records import FloatArray, IntArray, Metric

Places: TypeAlias = NDArray[np.int16]

# what a `Cell` has one of, and arrays of a `Library` with one or, along further axes, several for each cell
FIGURES = ("zero_shot", "probed", "total", "seconds", "finished", "predicted_on", "neighbours_on")
GRIDS = (*FIGURES, "build", "tuned_runs", "signals", "evidence_draws", "predicted", "neighbours")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceCandidate:
    """A candidate as the library knows it."""

    id: str
    arch: str
    tag: str
    family: str = "unknown"
    params: int | None = None
    flops: float | None = None  # of one image through the visual tower
    sha256: str = ""  # of the weights; "": unknown (published figures)
    blocks: tuple[str, ...] = ()  # (B,) visual blocks, shallow to deep; (): no profile


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceTask:
    """A source task as the library knows it: no image is kept."""

    name: str
    domain: str
    classes: tuple[str, ...]
    digest: str  # sha256 of the task's content, see Task.digest
    n_test: int  # images behind the accuracies; 0: unknown
    zero_shot_images: int | None = None  # behind zero-shot accuracies, where they are others
    metric: Metric = "accuracy"  # of what probes and tuning reached; zero-shot figures are always accuracy

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    def may_be(self, *, name: str, digest: str | None = None) -> bool:
        """Whether it may be this very task: by content, by name, or as another split of it that was searched before."""
        return self.digest == digest or self.name in {name, second_name(name, digest=self.digest)}


def second_name(name: str, *, digest: str) -> str:
    """What a task is called beside one of its name with another content, as another split of one folder has."""
    return f"{name}-{digest[:8]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """How cells were made: the provenance that many cells share."""

    source: str  # "vlmsel-auto library build", "vlmsel-auto search", or the citation of a published table
    code_version: str
    settings: tuple[tuple[str, str], ...] = ()  # sorted (name, value): scalar, images, baseline, error, seed, ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CellFailure:
    """Why one cell is missing."""

    candidate: str
    task: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One candidate on one task. Everything but the identity may be missing (NaN, or an empty array or mapping)."""

    candidate: SourceCandidate
    task: SourceTask
    build: Build
    finished: float  # seconds since 1970-01-01 UTC
    zero_shot: float = np.nan  # accuracy on the test split
    probed: float = np.nan  # of a linear probe on the test split, by the task's metric
    total: float = np.nan  # mean over images of F(x) - F(x0), F = margin
    seconds: float = np.nan  # wall time of the cell
    tuned: Mapping[str, float] = field(default_factory=dict)  # run name -> test split, by the task's metric
    signals: Mapping[str, float] = field(default_factory=dict)  # label-free statistics by name
    evidence: Mapping[tuple[int, int, str], float] = field(default_factory=dict)  # (draw, shots, score name) -> value
    activity: FloatArray = field(default_factory=lambda: np.empty(0))  # (B,) mean of sum |C|, F = margin
    predicted: FloatArray = field(default_factory=lambda: np.empty(0))  # (U,) zero-shot class of each unlabelled image
    predicted_on: float = np.nan  # which images: cells with another number saw others
    neighbours: Places = field(default_factory=lambda: np.empty((0, 0), np.int16))  # (V, k) of V unlabelled images
    neighbours_on: float = np.nan  # which images, likewise


@dataclass(frozen=True, kw_only=True, eq=False)
class Library:
    """Source tasks and what every candidate does on them. Arrays are float64 and NaN where nothing is known."""

    candidates: tuple[SourceCandidate, ...]  # (M,)
    tasks: tuple[SourceTask, ...]  # (S,)
    zero_shot: FloatArray  # (M, S)
    probed: FloatArray  # (M, S)
    total: FloatArray  # (M, S)
    seconds: FloatArray  # (M, S)
    finished: FloatArray  # (M, S) seconds since 1970-01-01 UTC
    build: IntArray  # (M, S) index into builds, -1 where there is no cell
    builds: tuple[Build, ...]
    run_names: tuple[str, ...]
    run_sources: tuple[str, ...]  # (R,) where each run's figures come from
    tuned_runs: FloatArray  # (M, S, R)
    signal_names: tuple[str, ...]
    signals: FloatArray  # (M, S, Q)
    shots: tuple[int, ...]
    evidence_names: tuple[str, ...]
    evidence_draws: FloatArray  # (M, S, draws, shots, scores): draw w takes the same images for every candidate
    activity: tuple[FloatArray, ...]  # of each candidate (S, B)
    predicted: FloatArray  # (M, S, U) zero-shot class of unlabelled images, NaN beyond a task's own number of images
    predicted_on: FloatArray  # (M, S) which images: equal numbers, the same images in the same order
    neighbours: Places  # (M, S, V, k) nearest of V unlabelled images, as places among them; -1: unknown
    neighbours_on: FloatArray  # (M, S) which images, likewise
    failures: tuple[CellFailure, ...] = ()

    @property
    def candidate_ids(self) -> tuple[str, ...]:
        """Ids of the candidates, in the order of the first axis."""
        return tuple(one.id for one in self.candidates)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the second axis."""
        return tuple(one.name for one in self.tasks)

    @property
    def tuned(self) -> FloatArray:
        """The task's metric after fine-tuning (M, S): the mean over the runs that are there, the least noisy figure."""
        return known_mean(self.tuned_runs)

    @property
    def has_profiles(self) -> tuple[bool, ...]:
        """Whether each candidate has a conductance profile on at least one task."""
        return tuple(bool(np.isfinite(one).any()) for one in self.activity)

    def row(self, candidate: str) -> int:
        """Index of a candidate.

        Raises:
            LibraryError: the library does not know it.
        """
        return _index(self.candidate_ids, candidate, "candidate")

    def column(self, task: str) -> int:
        """Index of a task.

        Raises:
            LibraryError: the library does not know it.
        """
        return _index(self.task_names, task, "task")

    def select(self, candidates: Sequence[str]) -> Library:
        """The library of these candidates only, in this order.

        Raises:
            LibraryError: one of them is not in the library.
        """
        return self._take([self.row(one) for one in candidates], range(len(self.tasks)))

    def leave_out(self, *, name: str, digest: str | None = None) -> Library:
        """The library without every source that `SourceTask.may_be` this task: a prediction must not see its answer."""
        return self.select_tasks([one.name for one in self.tasks if not one.may_be(name=name, digest=digest)])

    def select_tasks(self, tasks: Sequence[str]) -> Library:
        """The library of these tasks only, in this order.

        Raises:
            LibraryError: one of them is not in the library.
        """
        return self._take(range(len(self.candidates)), [self.column(one) for one in tasks])

    def cell(self, candidate: str, task: str) -> Cell | None:
        """What is known of one candidate on one task; None when there is no cell."""
        m, s = self.row(candidate), self.column(task)
        index = int(self.build[m, s])
        if index < 0:
            return None
        return Cell(
            candidate=self.candidates[m],
            task=self.tasks[s],
            build=self.builds[index],
            **{name: float(getattr(self, name)[m, s]) for name in FIGURES},
            tuned=_known(self.run_names, self.tuned_runs[m, s]),
            signals=_known(self.signal_names, self.signals[m, s]),
            evidence={
                (w, shots, name): float(self.evidence_draws[m, s, w, k, e])
                for w in range(self.evidence_draws.shape[2])
                for k, shots in enumerate(self.shots)
                for e, name in enumerate(self.evidence_names)
                if np.isfinite(self.evidence_draws[m, s, w, k, e])
            },
            activity=self.activity[m][s],
            predicted=self.predicted[m, s][np.isfinite(self.predicted[m, s])],
            neighbours=known_neighbours(self.neighbours[m, s]),
        )

    def cells(self) -> tuple[Cell, ...]:
        """Every cell that there is."""
        found = (self.cell(m, s) for m in self.candidate_ids for s in self.task_names)
        return tuple(one for one in found if one is not None)

    def _take(self, rows: Sequence[int], columns: Sequence[int]) -> Library:
        candidates, tasks = tuple(self.candidates[m] for m in rows), tuple(self.tasks[s] for s in columns)
        kept, names = {one.id for one in candidates}, {one.name for one in tasks}
        return replace(
            self,
            candidates=candidates,
            tasks=tasks,
            activity=tuple(self.activity[m][list(columns)] for m in rows),
            failures=tuple(one for one in self.failures if one.candidate in kept and one.task in names),
            **{name: getattr(self, name)[list(rows)][:, list(columns)] for name in GRIDS},
        )


def known_mean(values: FloatArray) -> FloatArray:
    """The mean over the last axis of what is there; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def known_neighbours(places: Places) -> Places:
    """Neighbours (v, k) of the images that a task has, of rows (V, K) that are -1 beyond."""
    known = places >= 0
    return places[known.any(axis=1)][:, known.any(axis=0)]


def _index(names: Sequence[str], name: str, kind: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise LibraryError(f"the library has no such {kind}; it has {', '.join(names)}, but got {name!r}") from None


def _known(names: Sequence[str], values: FloatArray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True) if np.isfinite(value)}
