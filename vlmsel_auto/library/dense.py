"""Dense arrays of a library out of its cells. Pure: no file, no model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.records import Cell, CellFailure, Library, SourceCandidate, SourceTask
from vlmsel_auto.records import FloatArray

__all__ = ["fill"]


def fill(
    candidates: tuple[SourceCandidate, ...],
    tasks: tuple[SourceTask, ...],
    joined: Mapping[tuple[str, str], Cell],
    *,
    failures: tuple[CellFailure, ...],
    run_sources: Mapping[str, str],
) -> Library:
    """The library of these cells: one dense array a kind of figure, NaN where there is none.

    Args:
        candidates: (M,) in the order of the arrays.
        tasks: (S,) likewise.
        joined: at most one cell for each (candidate id, task name).
        failures: cells that could not be made.
        run_sources: where each tuning run's figures come from, by run name.

    Raises:
        LibraryError: arrays of a cell do not have the shapes that its candidate and task ask for.
    """
    cells = tuple(joined.values())
    runs = tuple(sorted({name for cell in cells for name in cell.tuned}))
    names = tuple(sorted({name for cell in cells for name in cell.signals}))
    draws = 1 + max((key[0] for cell in cells for key in cell.evidence), default=-1)
    shots = tuple(sorted({key[1] for cell in cells for key in cell.evidence}))
    scores = tuple(sorted({key[2] for cell in cells for key in cell.evidence}))
    unlabelled = max((cell.predicted.size for cell in cells), default=0)
    builds = tuple(dict.fromkeys(cell.build for cell in cells))
    grid, classes = (len(candidates), len(tasks)), sum(task.n_classes for task in tasks)

    def nan(*shape: int) -> FloatArray:
        return np.full(shape, np.nan)

    library = Library(
        candidates=candidates,
        tasks=tasks,
        zero_shot=nan(*grid),
        probed=nan(*grid),
        total=nan(*grid),
        seconds=nan(*grid),
        finished=nan(*grid),
        build=np.full(grid, -1, dtype=np.int64),
        builds=builds,
        run_names=runs,
        run_sources=tuple(run_sources.get(name, "") for name in runs),
        tuned_runs=nan(*grid, len(runs)),
        signal_names=names,
        signals=nan(*grid, len(names)),
        shots=shots,
        evidence_names=scores,
        evidence_draws=nan(*grid, draws, len(shots), len(scores)),
        activity=tuple(nan(len(tasks), len(one.blocks)) for one in candidates),
        norm_activity=tuple(nan(len(tasks), len(one.blocks)) for one in candidates),
        signature=tuple(tuple(nan(len(tasks), width) for width in one.widths) for one in candidates),
        absolute=tuple(tuple(nan(len(tasks), width) for width in one.widths) for one in candidates),
        class_accuracy=nan(grid[0], classes),
        class_text=tuple(nan(classes, one.embed_dim) for one in candidates),
        class_image=tuple(nan(classes, one.embed_dim) for one in candidates),
        image_sd=tuple(nan(len(tasks), one.embed_dim) for one in candidates),
        predicted=nan(*grid, unlabelled),
        predicted_on=nan(*grid),
        failures=failures,
    )
    rows = {one.id: m for m, one in enumerate(candidates)}
    columns = {one.name: s for s, one in enumerate(tasks)}
    places = {build: index for index, build in enumerate(builds)}
    parts = library.class_slices()
    for (candidate, task), cell in joined.items():
        m, s = rows[candidate], columns[task]
        for name in ("zero_shot", "probed", "total", "seconds", "finished", "predicted_on"):
            getattr(library, name)[m, s] = getattr(cell, name)
        library.build[m, s] = places[cell.build]
        library.tuned_runs[m, s] = [cell.tuned.get(name, np.nan) for name in runs]
        library.signals[m, s] = [cell.signals.get(name, np.nan) for name in names]
        library.evidence_draws[m, s] = [
            [[cell.evidence.get((w, k, name), np.nan) for name in scores] for k in shots] for w in range(draws)
        ]
        library.predicted[m, s, : cell.predicted.size] = cell.predicted
        _put(library, cell, m, s, parts[s])
    return library


def _put(library: Library, cell: Cell, m: int, s: int, part: slice) -> None:
    """Copy the arrays of one cell that are there."""
    targets = [
        (library.activity[m][s], cell.activity, "activity"),
        (library.norm_activity[m][s], cell.norm_activity, "norm_activity"),
        (library.class_accuracy[m, part], cell.class_accuracy, "class_accuracy"),
        (library.class_text[m][part], cell.class_text, "class_text"),
        (library.class_image[m][part], cell.class_image, "class_image"),
        (library.image_sd[m][s], cell.image_sd, "image_sd"),
        *((block[s], value, "signature") for block, value in zip(library.signature[m], cell.signature, strict=False)),
        *((block[s], value, "absolute") for block, value in zip(library.absolute[m], cell.absolute, strict=False)),
    ]
    for target, value, name in targets:
        if value.size == 0:
            continue
        if value.shape != target.shape:
            raise LibraryError(
                f"{name} of {cell.candidate.id} on {cell.task.name} must have shape {target.shape}, "
                f"but got {value.shape}"
            )
        target[...] = value
