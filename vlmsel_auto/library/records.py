"""Records of a library of source tasks: what is known of every candidate on every task, missing values as NaN.

Shapes: M candidates, S source tasks, B_m visual blocks of candidate m, C_mb channels of its block b, D_m embedding
width, K_s classes of task s and G = sum of K_s. Accuracies lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.cells import Build, Cell, CellFailure, SourceCandidate, SourceTask
from vlmsel_auto.records import FloatArray, IntArray

__all__ = ["AXES", "Build", "Cell", "CellFailure", "Library", "SourceCandidate", "SourceTask"]

# The axes of every array of a Library: m candidates, s tasks, r tuning runs, q signals, w draws, k shots,
# e evidence scores, u unlabelled images, g classes of all tasks, d embedding, b blocks. "*": one array a candidate,
# "**": one a block.
AXES: Final[Mapping[str, str]] = {
    "zero_shot": "ms",
    "probed": "ms",
    "total": "ms",
    "seconds": "ms",
    "finished": "ms",
    "build": "ms",
    "predicted_on": "ms",
    "predicted": "msu",
    "tuned_runs": "msr",
    "signals": "msq",
    "evidence_draws": "mswke",
    "class_accuracy": "mg",
    "activity": "*sb",
    "norm_activity": "*sb",
    "class_text": "*gd",
    "class_image": "*gd",
    "image_sd": "*sd",
    "signature": "**s",
    "absolute": "**s",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Library:
    """Source tasks and what every candidate does on them. Arrays are float64 and NaN where nothing is known.

    ``signature[m][b]`` is (S, C_mb); ``activity[m]`` is (S, B_m); ``class_accuracy`` and the class embeddings run
    over the classes of all tasks in order (``class_slices`` says which are whose).
    """

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
    activity: tuple[FloatArray, ...]
    norm_activity: tuple[FloatArray, ...]
    signature: tuple[tuple[FloatArray, ...], ...]
    absolute: tuple[tuple[FloatArray, ...], ...]
    class_accuracy: FloatArray  # (M, G)
    class_text: tuple[FloatArray, ...]
    class_image: tuple[FloatArray, ...]
    image_sd: tuple[FloatArray, ...]
    predicted: FloatArray  # (M, S, U) zero-shot class of unlabelled images, NaN beyond a task's own number of images
    predicted_on: FloatArray  # (M, S) which images: equal numbers, the same images in the same order
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
        """Accuracy after fine-tuning (M, S): the mean over the runs that are there, the least noisy single figure."""
        return _known_mean(self.tuned_runs)

    @property
    def evidence(self) -> FloatArray:
        """Evidence scores (M, S, shots, scores): the mean over the draws that are there."""
        return _known_mean(np.moveaxis(self.evidence_draws, 2, -1))

    @property
    def has_profiles(self) -> tuple[bool, ...]:
        """Whether each candidate has a conductance profile on at least one task."""
        return tuple(bool(np.isfinite(one).any()) for one in self.activity)

    def class_slices(self) -> tuple[slice, ...]:
        """Where each task's classes lie on the axis of all classes."""
        ends = np.cumsum([task.n_classes for task in self.tasks], dtype=np.int64).tolist()
        return tuple(slice(end - task.n_classes, end) for task, end in zip(self.tasks, ends, strict=True))

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
        return self._take([self.row(one) for one in candidates], list(range(len(self.tasks))))

    def leave_out(self, task: str) -> Library:
        """The library without one task.

        Raises:
            LibraryError: the library does not know the task.
        """
        left = self.column(task)
        return self._take(list(range(len(self.candidates))), [s for s in range(len(self.tasks)) if s != left])

    def select_tasks(self, tasks: Sequence[str]) -> Library:
        """The library of these tasks only, in this order.

        Raises:
            LibraryError: one of them is not in the library.
        """
        return self._take(list(range(len(self.candidates))), [self.column(one) for one in tasks])

    def cell(self, candidate: str, task: str) -> Cell | None:
        """What is known of one candidate on one task; None when there is no cell."""
        m, s = self.row(candidate), self.column(task)
        index = int(self.build[m, s])
        if index < 0:
            return None
        part = self.class_slices()[s]
        return Cell(
            candidate=self.candidates[m],
            task=self.tasks[s],
            build=self.builds[index],
            finished=float(self.finished[m, s]),
            zero_shot=float(self.zero_shot[m, s]),
            probed=float(self.probed[m, s]),
            total=float(self.total[m, s]),
            seconds=float(self.seconds[m, s]),
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
            norm_activity=self.norm_activity[m][s],
            signature=tuple(block[s] for block in self.signature[m]),
            absolute=tuple(block[s] for block in self.absolute[m]),
            class_accuracy=self.class_accuracy[m, part],
            class_text=self.class_text[m][part],
            class_image=self.class_image[m][part],
            image_sd=self.image_sd[m][s],
            predicted=self.predicted[m, s][np.isfinite(self.predicted[m, s])],
            predicted_on=float(self.predicted_on[m, s]),
        )

    def cells(self) -> tuple[Cell, ...]:
        """Every cell that there is."""
        found = (self.cell(m, s) for m in self.candidate_ids for s in self.task_names)
        return tuple(one for one in found if one is not None)

    def _take(self, rows: Sequence[int], columns: Sequence[int]) -> Library:
        slices = self.class_slices()
        groups = [g for s in columns for g in range(slices[s].start, slices[s].stop)]
        along = {"s": columns, "g": groups}
        changed = {item.name: getattr(self, item.name) for item in fields(self)}
        for name, axes in AXES.items():
            value = changed[name]
            if axes.startswith("**"):
                changed[name] = tuple(tuple(block[columns] for block in value[m]) for m in rows)
            elif axes.startswith("*"):
                changed[name] = tuple(value[m][along[axes[1]]] for m in rows)
            else:
                changed[name] = value[rows][:, along[axes[1]]]
        changed["candidates"] = tuple(self.candidates[m] for m in rows)
        changed["tasks"] = tuple(self.tasks[s] for s in columns)
        kept, names = {one.id for one in changed["candidates"]}, {one.name for one in changed["tasks"]}
        changed["failures"] = tuple(one for one in self.failures if one.candidate in kept and one.task in names)
        return replace(self, **changed)


def _index(names: Sequence[str], name: str, kind: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise LibraryError(f"the library has no such {kind}; it has {', '.join(names)}, but got {name!r}") from None


def _known_mean(values: FloatArray) -> FloatArray:
    """Mean over the last axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def _known(names: Sequence[str], values: FloatArray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True) if np.isfinite(value)}
