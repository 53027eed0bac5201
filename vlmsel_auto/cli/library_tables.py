"""A library as tables for people and JSON for scripts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vlmsel_auto.cache import Json
from vlmsel_auto.cli.answers import print_table
from vlmsel_auto.cli.support import say
from vlmsel_auto.library.records import Library, SourceTask
from vlmsel_auto.records import FloatArray
from vlmsel_auto.reporting.formatting import plural
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
    """What has to be said where figures after tuning are no accuracies."""
    names: dict[str, list[str]] = {}
    for task in dict.fromkeys(tasks):
        if task.metric != "accuracy":
            names.setdefault(metric_text(task.metric), []).append(task.name)
    return [f"tuned on {', '.join(held)}: {metric}, not accuracy" for metric, held in names.items()]


def _summary_columns(library: Library, *, axis: int) -> list[Column]:
    lines = _summary(library, axis=axis)
    return [
        Column("cells", [str(cells) for cells, _, _ in lines], right=True, least=_WIDE),
        Column("zero-shot", [percent(zero_shot) for _, zero_shot, _ in lines], right=True),
        Column("tuned", [percent(tuned) for _, _, tuned in lines], right=True),
    ]
