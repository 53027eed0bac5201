"""A library as tables for people, JSON for scripts and CSV for spreadsheets."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vlmsel_auto.cache import Json
from vlmsel_auto.cli.answers import print_table, write_csv
from vlmsel_auto.cli.support import say
from vlmsel_auto.library.records import Cell, Library, SourceTask
from vlmsel_auto.records import FloatArray
from vlmsel_auto.reporting.formatting import number, plural
from vlmsel_auto.reporting.table import Column
from vlmsel_auto.units import metric_text, percent, thousands

_WIDE = 100  # columns of a window that has room for more than names and figures


def _summary(library: Library, *, axis: int) -> list[tuple[int, float, float]]:
    """Cells, mean zero-shot and mean tuned accuracy (NaN: unknown) by candidate (axis 0) or by task (axis 1)."""
    grids = (library.build >= 0, library.zero_shot, library.tuned)
    made, zero_shot, tuned = (np.moveaxis(grid, axis, 0) for grid in grids)
    return [
        (int(cells.sum()), _mean(before), _mean(after))
        for cells, before, after in zip(made, zero_shot, tuned, strict=True)
    ]


def told(made: Library, path: Path) -> Json:
    """Say that a library was written, and what it holds as JSON."""
    say(f"{path}: {plural(len(made.candidates), 'candidate')}, {plural(len(made.tasks), 'source task')}")
    return {
        "library": str(path),
        "candidates": len(made.candidates),
        "tasks": len(made.tasks),
        "failures": [{"candidate": one.candidate, "task": one.task, "reason": one.reason} for one in made.failures],
    }


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else np.nan


def _tuned(cell: Cell) -> float:
    return float(np.mean(list(cell.tuned.values()))) if cell.tuned else np.nan


def list_json(library: Library) -> Json:
    """``{"tasks": [...], "candidates": [...]}`` with counts and means of what is known."""
    return {
        "tasks": [
            {
                "name": task.name,
                "domain": task.domain,
                "classes": task.n_classes,
                "test_images": task.n_test,
                "metric": task.metric,
                "cells": cells,
                "mean_zero_shot": zero_shot,
                "mean_tuned": tuned,
            }
            for task, (cells, zero_shot, tuned) in zip(library.tasks, _summary(library, axis=1), strict=True)
        ],
        "candidates": [
            {
                "id": one.id,
                "family": one.family,
                "params": one.params,
                "profile": profile,
                "cells": cells,
                "mean_zero_shot": zero_shot,
                "mean_tuned": tuned,
            }
            for one, profile, (cells, zero_shot, tuned) in zip(
                library.candidates, library.has_profiles, _summary(library, axis=0), strict=True
            )
        ],
    }


def print_list(library: Library) -> None:
    """Print the source tasks, then the candidates."""
    tasks, candidates = library.tasks, library.candidates
    print_table(
        [
            Column("source task", [task.name for task in tasks]),
            Column("domain", [task.domain for task in tasks], least=_WIDE, folds=True),
            Column("classes", [str(task.n_classes) for task in tasks], right=True),
            Column("test images", [f"{task.n_test:,}" if task.n_test else "-" for task in tasks], right=True),
            *_summary_columns(library, axis=1),
        ],
        notes=[""],
    )
    print_table(
        [
            Column("candidate", [one.id for one in candidates], folds=True),
            Column("family", [one.family for one in candidates]),
            Column("parameters", [thousands(one.params) for one in candidates], right=True),
            Column("profile", ["yes" if profile else "no" for profile in library.has_profiles], least=_WIDE),
            *_summary_columns(library, axis=0),
        ],
        notes=[
            *_other_metrics(library.tasks[s] for s in np.flatnonzero(np.isfinite(library.tuned).any(axis=0))),
            *([f"{plural(len(library.failures), 'cell')} failed"] if library.failures else []),
        ],
    )


def _other_metrics(tasks: Iterable[SourceTask]) -> list[str]:
    """What has to be said where figures of probes and tuning are no accuracies."""
    names: dict[str, list[str]] = {}
    for task in dict.fromkeys(tasks):
        if task.metric != "accuracy":
            names.setdefault(metric_text(task.metric), []).append(task.name)
    return [f"probe and tuned on {', '.join(held)}: {metric}, not accuracy" for metric, held in names.items()]


def _summary_columns(library: Library, *, axis: int) -> list[Column]:
    lines = _summary(library, axis=axis)
    return [
        Column("cells", [str(cells) for cells, _, _ in lines], right=True, least=_WIDE),
        Column("zero-shot", [percent(zero_shot) for _, zero_shot, _ in lines], right=True),
        Column("tuned", [percent(tuned) for _, _, tuned in lines], right=True),
    ]


def select(library: Library, name: str) -> tuple[Cell, ...]:
    """The cells of a source task, or else of a candidate.

    Raises:
        LibraryError: the library knows neither.
    """
    if name in library.task_names:
        found = [library.cell(one, name) for one in library.candidate_ids]
    else:
        library.row(name)  # refuses an unknown name
        found = [library.cell(name, one) for one in library.task_names]
    return tuple(cell for cell in found if cell is not None)


def show_json(cells: Sequence[Cell]) -> Json:
    """``{"cells": [...]}``: figures and provenance; ``metric`` is that of ``probed`` and ``tuned``."""
    return {
        "cells": [
            {
                "candidate": cell.candidate.id,
                "task": cell.task.name,
                "metric": cell.task.metric,
                "zero_shot": cell.zero_shot,
                "probed": cell.probed,
                "tuned": _tuned(cell),
                "conductance_total": cell.total,
                "source": cell.build.source,
                "code_version": cell.build.code_version,
                "settings": dict(cell.build.settings),
                "weights": cell.candidate.sha256,
                "task_digest": cell.task.digest,
                "finished": cell.finished,
                "seconds": cell.seconds,
            }
            for cell in cells
        ]
    }


def print_cells(cells: Sequence[Cell]) -> None:
    """Print cells, the best zero-shot accuracy first, and where they come from."""
    ordered = sorted(cells, key=lambda cell: -np.nan_to_num(cell.zero_shot))
    days = [
        time.strftime("%Y-%m-%d", time.gmtime(cell.finished)) if np.isfinite(cell.finished) else "-" for cell in ordered
    ]
    columns = [
        Column("candidate", [cell.candidate.id for cell in ordered], folds=True),
        Column("task", [cell.task.name for cell in ordered], folds=True),
        Column("zero-shot", [percent(cell.zero_shot) for cell in ordered], right=True),
        Column("probe", [percent(cell.probed) for cell in ordered], right=True),
        Column("tuned", [percent(_tuned(cell)) for cell in ordered], right=True),
        Column("conductance", [number(cell.total) for cell in ordered], right=True),
        Column("made", days, least=_WIDE),
    ]
    sources = sorted({f"{cell.build.source} {cell.build.code_version}".strip() for cell in cells})
    others = _other_metrics(cell.task for cell in ordered if np.isfinite([cell.probed, _tuned(cell)]).any())
    print_table(columns, notes=[*others, *(f"source: {source}" for source in sources)])


def write_cells(library: Library, path: Path) -> None:
    """Write one line a cell: figures and where they come from; unknown values are empty.

    Zero-shot figures are accuracies, ``probed`` and ``tuned`` by the task's ``metric``.

    Raises:
        InputError: the file cannot be written.
    """
    rows = [["candidate", "task", "zero_shot", "probed", "tuned", "conductance_total", "source", "finished", "metric"]]
    for cell in library.cells():
        values = (cell.zero_shot, cell.probed, _tuned(cell), cell.total)
        texts = [f"{value:.6g}" if np.isfinite(value) else "" for value in values]
        finished = f"{cell.finished:.0f}" if np.isfinite(cell.finished) else ""
        rows.append([cell.candidate.id, cell.task.name, *texts, cell.build.source, finished, cell.task.metric])
    write_csv(rows, path, what="the table")
