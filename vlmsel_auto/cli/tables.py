"""A library as tables for people, JSON for scripts and CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlmsel_auto.cache import Json, write_atomically
from vlmsel_auto.cli.answers import print_table
from vlmsel_auto.errors import InputError
from vlmsel_auto.library.records import Cell, Library
from vlmsel_auto.models.candidates import fingerprint, mini_zoo
from vlmsel_auto.records import FloatArray
from vlmsel_auto.reporting.formatting import number, percent, plural, thousands

__all__ = ["list_json", "mini_zoo_weights", "print_cells", "print_list", "select", "show_json", "write_csv"]


def _mean(values: FloatArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _tuned(cell: Cell) -> float | None:
    return float(np.mean(list(cell.tuned.values()))) if cell.tuned else None


def list_json(library: Library) -> Json:
    """``{"tasks": [...], "candidates": [...]}`` with counts and means of what is known."""
    tuned = library.tuned
    return {
        "tasks": [
            {
                "name": task.name,
                "domain": task.domain,
                "classes": task.n_classes,
                "test_images": task.n_test,
                "cells": int((library.build[:, s] >= 0).sum()),
                "mean_zero_shot": _mean(library.zero_shot[:, s]),
                "mean_tuned": _mean(tuned[:, s]),
            }
            for s, task in enumerate(library.tasks)
        ],
        "candidates": [
            {
                "id": one.id,
                "family": one.family,
                "params": one.params,
                "profile": library.has_profiles[m],
                "cells": int((library.build[m] >= 0).sum()),
                "mean_zero_shot": _mean(library.zero_shot[m]),
                "mean_tuned": _mean(tuned[m]),
            }
            for m, one in enumerate(library.candidates)
        ],
    }


def print_list(library: Library) -> None:
    """Print the source tasks, then the candidates."""
    tuned = library.tuned
    profiled = library.has_profiles
    tasks = [("source task", False), ("domain", False), ("classes", True), ("test images", True), ("cells", True),
             ("zero-shot", True), ("tuned", True)]  # fmt: skip
    print_table(
        tasks,
        [
            (
                task.name,
                task.domain,
                str(task.n_classes),
                f"{task.n_test:,}" if task.n_test else "-",
                str(int((library.build[:, s] >= 0).sum())),
                percent(_mean(library.zero_shot[:, s])),
                percent(_mean(tuned[:, s])),
            )
            for s, task in enumerate(library.tasks)
        ],
        notes=[""],
    )
    candidates = [("candidate", False), ("family", False), ("parameters", True), ("profile", False), ("cells", True),
                  ("zero-shot", True), ("tuned", True)]  # fmt: skip
    print_table(
        candidates,
        [
            (
                one.id,
                one.family,
                thousands(one.params),
                "yes" if profiled[m] else "no",
                str(int((library.build[m] >= 0).sum())),
                percent(_mean(library.zero_shot[m])),
                percent(_mean(tuned[m])),
            )
            for m, one in enumerate(library.candidates)
        ],
        notes=[f"{plural(len(library.failures), 'cell')} failed"] if library.failures else [],
    )


def select(library: Library, name: str) -> tuple[Cell, ...]:
    """The cells of a source task, or else of a candidate.

    Raises:
        LibraryError: the library knows neither.
    """
    if name in library.task_names:
        found = (library.cell(one, name) for one in library.candidate_ids)
    else:
        row = library.candidates[library.row(name)]
        found = (library.cell(row.id, one) for one in library.task_names)
    return tuple(cell for cell in found if cell is not None)


def show_json(cells: Sequence[Cell]) -> Json:
    """``{"cells": [...]}``: accuracies and provenance."""
    return {
        "cells": [
            {
                "candidate": cell.candidate.id,
                "task": cell.task.name,
                "zero_shot": _plain(cell.zero_shot),
                "probed": _plain(cell.probed),
                "tuned": _tuned(cell),
                "conductance_total": _plain(cell.total),
                "source": cell.build.source,
                "code_version": cell.build.code_version,
                "settings": dict(cell.build.settings),
                "weights": cell.candidate.sha256,
                "task_digest": cell.task.digest,
                "finished": _plain(cell.finished),
                "seconds": _plain(cell.seconds),
            }
            for cell in cells
        ]
    }


def print_cells(cells: Sequence[Cell]) -> None:
    """Print cells, the best zero-shot accuracy first, and where they come from."""
    columns = [("candidate", False), ("task", False), ("zero-shot", True), ("probe", True), ("tuned", True),
               ("total", True), ("made", False)]  # fmt: skip
    ordered = sorted(cells, key=lambda cell: -(_plain(cell.zero_shot) or 0.0))
    rows = [
        (
            cell.candidate.id,
            cell.task.name,
            percent(_plain(cell.zero_shot)),
            percent(_plain(cell.probed)),
            percent(_tuned(cell)),
            number(_plain(cell.total)),
            time.strftime("%Y-%m-%d", time.gmtime(cell.finished)) if np.isfinite(cell.finished) else "-",
        )
        for cell in ordered
    ]
    sources = sorted({f"{cell.build.source} {cell.build.code_version}".strip() for cell in cells})
    print_table(columns, rows, notes=[f"source: {source}" for source in sources])


def write_csv(library: Library, path: Path) -> None:
    """Write one line a cell: accuracies and where they come from; unknown values are empty.

    Raises:
        InputError: the file cannot be written.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["candidate", "task", "zero_shot", "probed", "tuned", "conductance_total", "source", "finished"])
    for cell in library.cells():
        values = (_plain(cell.zero_shot), _plain(cell.probed), _tuned(cell), _plain(cell.total))
        texts = ["" if value is None else f"{value:.6g}" for value in values]
        finished = "" if not np.isfinite(cell.finished) else f"{cell.finished:.0f}"
        writer.writerow([cell.candidate.id, cell.task.name, *texts, cell.build.source, finished])
    try:
        write_atomically(path, stream.getvalue().encode())
    except OSError as error:
        raise InputError(f"the table cannot be written here ({error.strerror}), but got {str(path)!r}") from error


def mini_zoo_weights() -> dict[str, str]:
    """Fingerprint of every mini-zoo member at hand, by id; the same that a library's cells carry."""
    return {one.id: fingerprint(one) for one in mini_zoo()}
