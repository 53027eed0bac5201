"""Cells into a library, libraries into one. Pure: no file, no model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.records import FIGURES, Cell, CellFailure, Library, SourceCandidate, SourceTask
from vlmsel_auto.records import FloatArray


def assemble(
    cells: Iterable[Cell],
    *,
    failures: Iterable[CellFailure] = (),
    run_sources: Mapping[str, str] | None = None,
) -> Library:
    """Put cells together; candidates and tasks keep the order in which they first appear.

    Two cells of the same candidate and task are joined field by field. Where they disagree, and where a candidate's
    weights or a task's content differ between cells, what was finished last counts.

    Args:
        cells: in any order.
        failures: cells that could not be made; dropped where a cell with a zero-shot accuracy is there after all.
        run_sources: where each tuning run's figures come from, by run name.

    Raises:
        LibraryError: array shapes do not fit together.
    """

    def candidate(cell: Cell) -> str:
        return cell.candidate.id

    def blocks(cell: Cell) -> str:
        return " ".join(cell.candidate.blocks)

    held = list(cells)
    held = _one_version(held, candidate, lambda cell: cell.candidate.sha256)
    held = _one_version(held, lambda cell: cell.task.name, lambda cell: cell.task.digest)
    held = _one_version(held, candidate, blocks, drop=_without_profile)
    joined: dict[tuple[str, str], Cell] = {}
    for cell in sorted(held, key=lambda cell: cell.finished):  # stable: later ones are newer
        key = cell.candidate.id, cell.task.name
        joined[key] = _join(joined[key], cell) if key in joined else cell
    wanted = {(one.candidate, one.task): one for one in failures}
    return _fill(
        _best_described(held),
        tuple({cell.task.name: cell.task for cell in held}.values()),
        joined,
        failures=tuple(
            one for key, one in wanted.items() if key not in joined or not np.isfinite(joined[key].zero_shot)
        ),
        run_sources=run_sources or {},
    )


def _fill(
    candidates: tuple[SourceCandidate, ...],
    tasks: tuple[SourceTask, ...],
    joined: Mapping[tuple[str, str], Cell],
    *,
    failures: tuple[CellFailure, ...],
    run_sources: Mapping[str, str],
) -> Library:
    """The library of at most one cell for each (candidate id, task name); arrays go by candidates and tasks."""
    cells = joined.values()
    runs = tuple(sorted({name for cell in cells for name in cell.tuned}))
    names = tuple(sorted({name for cell in cells for name in cell.signals}))
    draws = 1 + max((key[0] for cell in cells for key in cell.evidence), default=-1)
    shots = tuple(sorted({key[1] for cell in cells for key in cell.evidence}))
    scores = tuple(sorted({key[2] for cell in cells for key in cell.evidence}))
    unlabelled = max((cell.predicted.size for cell in cells), default=0)
    nearest = [max((cell.neighbours.shape[axis] for cell in cells), default=0) for axis in (0, 1)]
    builds = tuple(dict.fromkeys(cell.build for cell in cells))
    grid = (len(candidates), len(tasks))

    def nan(*shape: int) -> FloatArray:
        return np.full(shape, np.nan)

    library = Library(
        candidates=candidates,
        tasks=tasks,
        **{name: nan(*grid) for name in FIGURES},
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
        predicted=nan(*grid, unlabelled),
        neighbours=np.full((*grid, *nearest), -1, dtype=np.int16),
        failures=failures,
    )
    rows = {one.id: m for m, one in enumerate(candidates)}
    columns = {one.name: s for s, one in enumerate(tasks)}
    for (candidate, task), cell in joined.items():
        _put(library, cell, m=rows[candidate], s=columns[task])
    return library


def _put(library: Library, cell: Cell, *, m: int, s: int) -> None:
    """Write a cell into the arrays, which have room for it."""
    for name in FIGURES:
        getattr(library, name)[m, s] = getattr(cell, name)
    library.build[m, s] = library.builds.index(cell.build)
    library.tuned_runs[m, s] = [cell.tuned.get(name, np.nan) for name in library.run_names]
    library.signals[m, s] = [cell.signals.get(name, np.nan) for name in library.signal_names]
    library.evidence_draws[m, s] = [
        [[cell.evidence.get((w, k, name), np.nan) for name in library.evidence_names] for k in library.shots]
        for w in range(library.evidence_draws.shape[2])
    ]
    library.predicted[m, s, : cell.predicted.size] = cell.predicted
    u, k = cell.neighbours.shape
    library.neighbours[m, s, :u, :k] = cell.neighbours
    if cell.activity.size:
        target = library.activity[m][s]
        if cell.activity.shape != target.shape:
            raise LibraryError(
                f"activity of {cell.candidate.id} on {cell.task.name} must have shape {target.shape}, "
                f"but got {cell.activity.shape}"
            )
        target[...] = cell.activity


def merge(*libraries: Library) -> Library:
    """One library out of several; see `assemble` for what happens to cells that several of them hold."""
    return assemble(
        (cell for one in libraries for cell in one.cells()),
        failures=(failure for one in libraries for failure in one.failures),
        run_sources={
            name: source for one in libraries for name, source in zip(one.run_names, one.run_sources, strict=True)
        },
    )


def _one_version(
    cells: list[Cell],
    name: Callable[[Cell], str],
    version: Callable[[Cell], str],
    *,
    drop: Callable[[Cell], Cell | None] = lambda _: None,
) -> list[Cell]:
    """Keep, for each name, the newest version of its content; an empty version (unknown) goes with every other."""
    finished: dict[str, dict[str, float]] = {}
    for cell in cells:
        if version(cell):
            known = finished.setdefault(name(cell), {})
            known[version(cell)] = max(cell.finished, known.get(version(cell), -np.inf))
    clashes = [one for one, known in finished.items() if len(known) > 1]
    newest = {one: max(finished[one], key=finished[one].__getitem__) for one in clashes}
    kept = (cell if version(cell) in ("", newest.get(name(cell), version(cell))) else drop(cell) for cell in cells)
    return [cell for cell in kept if cell is not None]


def _without_profile(cell: Cell) -> Cell:
    return replace(cell, candidate=replace(cell.candidate, blocks=()), activity=np.empty(0), signals={})


def _join(old: Cell, new: Cell) -> Cell:
    """The newer cell, with what it lacks from the older one."""
    profiled = old if new.activity.size == 0 and old.activity.size else new
    kept = (*FIGURES, "activity", "predicted", "neighbours")
    return replace(
        new,
        build=profiled.build,
        candidate=profiled.candidate,
        **{name: getattr(old if _missing(getattr(new, name)) else new, name) for name in kept},
        tuned={**old.tuned, **new.tuned},
        signals={**old.signals, **new.signals},
        evidence={**old.evidence, **new.evidence},
    )


def _missing(value: float | FloatArray) -> bool:
    return bool(np.isnan(value).all())


def _best_described(cells: Sequence[Cell]) -> tuple[SourceCandidate, ...]:
    """One record a candidate: the newest, with blocks from whichever cell has them."""
    found = {cell.candidate.id: cell.candidate for cell in cells}  # in the order of their first cells
    for cell in sorted(cells, key=lambda cell: cell.finished):
        old, new = found[cell.candidate.id], cell.candidate
        found[new.id] = replace(new, sha256=new.sha256 or old.sha256, blocks=new.blocks or old.blocks)
    return tuple(found.values())
