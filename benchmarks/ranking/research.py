"""What `compared_rankings.py` reads beside a library: scores that no ranking fuses, channels, class statistics.

`tools/measure_research.py` measures it and `tools/shipped_library.py` writes it with the library.

Shapes: M candidates, S tasks, B blocks and D embedding width of a candidate, C channels of a block, G classes of all
tasks in their order. NaN is "not known".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from vlmsel_auto.cache import Json
from vlmsel_auto.library.file import Arrays, checked, read_document, write_document
from vlmsel_auto.library.records import Library, SourceTask
from vlmsel_auto.records import FloatArray, IntArray

FORMAT: Final = "vlmsel_auto research figures"
VERSION: Final = 2
PATH: Final = Path(__file__).parents[1] / "data" / "mini-zoo-research.safetensors"  # of the mini zoo


@dataclass(frozen=True, kw_only=True, slots=True)
class ResearchCandidate:
    """A candidate and the shapes of what is kept of it."""

    id: str
    sha256: str  # of the weights
    widths: tuple[int, ...]  # (B,) channels C of every block
    elements: tuple[int, ...]  # (B,) neurons of every block: channels times tokens or pixels
    embed_dim: int  # D


@dataclass(frozen=True, kw_only=True, eq=False)
class Research:
    """Research figures of candidates on tasks."""

    candidates: tuple[ResearchCandidate, ...]  # (M,)
    tasks: tuple[SourceTask, ...]  # (S,)
    signal_names: tuple[str, ...]
    signals: FloatArray  # (M, S, names)
    shots: tuple[int, ...]
    evidence_names: tuple[str, ...]
    evidence_draws: FloatArray  # (M, S, draws, shots, names)
    class_accuracy: FloatArray  # (M, G)
    norm_activity: tuple[FloatArray, ...]  # of each candidate (S, B): sum |C|, F = norm of the embedding
    signature: tuple[tuple[FloatArray, ...], ...]  # of each block of each candidate (S, C)
    absolute: tuple[tuple[FloatArray, ...], ...]  # of each block of each candidate (S, C)
    class_text: tuple[FloatArray, ...]  # of each candidate (G, D)
    class_image: tuple[FloatArray, ...]  # of each candidate (G, D)
    image_sd: tuple[FloatArray, ...]  # of each candidate (S, D)

    def class_slices(self) -> tuple[slice, ...]:
        """Where each task's classes lie on the axis of all classes."""
        ends = np.cumsum([task.n_classes for task in self.tasks], dtype=np.int64).tolist()
        return tuple(slice(end - task.n_classes, end) for task, end in zip(self.tasks, ends, strict=True))

    def norm_means(self) -> list[FloatArray]:
        """Of each candidate (S, B): mean over a block's neurons of |C|, F = norm of the embedding."""
        sizes = [np.array(one.elements, dtype=np.float64) for one in self.candidates]
        return [sums / size for sums, size in zip(self.norm_activity, sizes, strict=True)]

    def aligned(self, library: Library) -> Research:
        """The figures of a library's candidates and tasks in its order, NaN where other weights or images were used."""
        ids = {(one.id, one.sha256): m for m, one in enumerate(self.candidates)}
        digests = {(one.digest, one.classes): s for s, one in enumerate(self.tasks)}
        rows = np.array([ids.get((one.id, one.sha256), -1) for one in library.candidates], dtype=np.int64)
        columns = np.array([digests.get((one.digest, one.classes), -1) for one in library.tasks], dtype=np.int64)
        return self._take(rows, columns, library.tasks)

    def take(self, rows: IntArray, columns: IntArray) -> Research:
        """The figures of some candidates and tasks only, in this order."""
        return self._take(rows, columns, tuple(self.tasks[s] for s in columns))

    def _take(self, rows: IntArray, columns: IntArray, tasks: tuple[SourceTask, ...]) -> Research:
        slices, nobody = self.class_slices(), ResearchCandidate(id="", sha256="", widths=(), elements=(), embed_dim=0)
        places = [
            np.arange(slices[s].start, slices[s].stop) if s >= 0 else np.full(task.n_classes, -1)
            for s, task in zip(columns, tasks, strict=True)
        ]
        groups = np.concatenate([*places, np.zeros(0, dtype=np.int64)])  # also without any task

        def each(values: Sequence[FloatArray], along: IntArray) -> tuple[FloatArray, ...]:
            return tuple(_pick(values[m], along) if m >= 0 else np.full((len(along), 0), np.nan) for m in rows)

        def blocks(values: Sequence[tuple[FloatArray, ...]]) -> tuple[tuple[FloatArray, ...], ...]:
            return tuple(tuple(_pick(block, columns) for block in values[m]) if m >= 0 else () for m in rows)

        return replace(
            self,
            candidates=tuple(self.candidates[m] if m >= 0 else nobody for m in rows),
            tasks=tasks,
            signals=_pick(_pick(self.signals, rows), columns, axis=1),
            evidence_draws=_pick(_pick(self.evidence_draws, rows), columns, axis=1),
            class_accuracy=_pick(_pick(self.class_accuracy, rows), groups, axis=1),
            norm_activity=each(self.norm_activity, columns),
            signature=blocks(self.signature),
            absolute=blocks(self.absolute),
            class_text=each(self.class_text, groups),
            class_image=each(self.class_image, groups),
            image_sd=each(self.image_sd, columns),
        )


def joined(library: Library, research: Research) -> tuple[Library, Research]:
    """A library with the scores that only research has, and the research figures of its candidates and tasks."""
    research = research.aligned(library)
    new = [q for q, name in enumerate(research.signal_names) if name not in library.signal_names]
    extra = [e for e, name in enumerate(research.evidence_names) if name not in library.evidence_names]
    draws = np.full((*library.evidence_draws.shape[:4], len(extra)), np.nan)
    for k, shots in enumerate(library.shots):
        if shots in research.shots:
            found = research.evidence_draws[:, :, : draws.shape[2], research.shots.index(shots)][..., extra]
            draws[:, :, : found.shape[2], k] = found
    whole = replace(
        library,
        signal_names=(*library.signal_names, *(research.signal_names[q] for q in new)),
        signals=np.concatenate([library.signals, research.signals[:, :, new]], axis=2),
        evidence_names=(*library.evidence_names, *(research.evidence_names[e] for e in extra)),
        evidence_draws=np.concatenate([library.evidence_draws, draws], axis=4),
    )
    return whole, research


def _pick(values: FloatArray, index: IntArray, *, axis: int = 0) -> FloatArray:
    """Entries along ``axis``, NaN where the index is -1."""
    last = [(0, int(one == axis)) for one in range(values.ndim)]
    return np.pad(values, last, constant_values=np.nan).take(index, axis=axis)


def save(research: Research, path: Path) -> None:
    """Write research figures, whole or not at all.

    Raises:
        LibraryError: the file cannot be written.
    """
    document: Json = {
        "candidates": [asdict(one) for one in research.candidates],
        "tasks": [asdict(one) for one in research.tasks],
        "signal_names": list(research.signal_names),
        "shots": list(research.shots),
        "evidence_names": list(research.evidence_names),
        "draws": research.evidence_draws.shape[2],
    }
    arrays: dict[str, np.ndarray[Any, np.dtype[Any]]] = {
        name: getattr(research, name) for name in ("signals", "evidence_draws", "class_accuracy")
    }
    for m in range(len(research.candidates)):
        arrays[f"norm_activity/{m}"] = research.norm_activity[m].astype(np.float32)
        for name in ("signature", "absolute"):
            arrays[f"{name}/{m}"] = np.concatenate(getattr(research, name)[m], axis=1, dtype=np.float32)
        for name in ("class_text", "class_image", "image_sd"):
            arrays[f"{name}/{m}"] = getattr(research, name)[m].astype(np.float16)
    write_document(path, document, arrays, kind=FORMAT, version=VERSION)


def load(path: Path = PATH) -> Research:
    """Read research figures.

    Raises:
        LibraryError: the file is missing, unreadable, cut short, damaged, of another kind or version.
    """
    return read_document(path, _research, kind=FORMAT, version=VERSION)


def _research(document: dict[str, Any], arrays: Arrays) -> Research:
    lists = ("widths", "elements")
    candidates = tuple(
        ResearchCandidate(**{**one, **{name: tuple(one[name]) for name in lists}}) for one in document["candidates"]
    )
    tasks = tuple(SourceTask(**{**one, "classes": tuple(one["classes"])}) for one in document["tasks"])
    m, s, g = len(candidates), len(tasks), sum(task.n_classes for task in tasks)
    signals, shots, scores = document["signal_names"], document["shots"], document["evidence_names"]

    def blocks(name: str) -> tuple[tuple[FloatArray, ...], ...]:
        whole = [checked(arrays, f"{name}/{i}", (s, sum(one.widths))) for i, one in enumerate(candidates)]
        ends = [np.cumsum(one.widths)[:-1] for one in candidates]
        return tuple(tuple(np.split(figures, at, axis=1)) for figures, at in zip(whole, ends, strict=True))

    def each(name: str, first: int) -> tuple[FloatArray, ...]:
        return tuple(checked(arrays, f"{name}/{i}", (first, one.embed_dim)) for i, one in enumerate(candidates))

    return Research(
        candidates=candidates,
        tasks=tasks,
        signal_names=tuple(signals),
        signals=checked(arrays, "signals", (m, s, len(signals))),
        shots=tuple(shots),
        evidence_names=tuple(scores),
        evidence_draws=checked(arrays, "evidence_draws", (m, s, int(document["draws"]), len(shots), len(scores))),
        class_accuracy=checked(arrays, "class_accuracy", (m, g)),
        norm_activity=tuple(
            checked(arrays, f"norm_activity/{i}", (s, len(one.widths))) for i, one in enumerate(candidates)
        ),
        signature=blocks("signature"),
        absolute=blocks("absolute"),
        class_text=each("class_text", g),
        class_image=each("class_image", g),
        image_sd=each("image_sd", s),
    )
