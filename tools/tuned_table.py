"""Tuned accuracies for the library that ships: from tables, one row for each candidate and task.

Two shapes are read. Wide: ``member,task[,zeroshot],RUN,RUN...``, every further column one tuning run. Long:
``member,task,method,seed,accuracy[,...]``, one row a run, as benchmarks/tuning/tuned_truth.py writes it; rows without
an accuracy (failed trials) are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.records import Library, known_mean
from vlmsel_auto.records import FloatArray

_KEYS: Final = {"member", "task"}
_LONG: Final = _KEYS | {"method", "seed", "accuracy"}
_NO_RUN: Final = _KEYS | {"zeroshot"}

_Runs = dict[str, dict[tuple[str, str], float]]  # run name -> (candidate, task) -> accuracy


def read_table(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Column names and rows of a CSV file.

    Raises:
        LibraryError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            return tuple(reader.fieldnames or ()), rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LibraryError(f"the table cannot be read as CSV ({error}), but got {path}") from error


def read_accuracy(text: str, path: Path) -> float:
    """The accuracy that a field of ``path`` holds.

    Raises:
        LibraryError: it is no number, or not in [0, 1].
    """
    try:
        value = float(text)
    except ValueError:
        raise LibraryError(f"the table {path} must hold numbers, but got {text!r}") from None
    if not 0 <= value <= 1:
        raise LibraryError(f"accuracies in {path} must lie in [0, 1], but got {text!r}")
    return value


def import_tuned(library: Library, path: Path, *, source: str | None = None) -> Library:
    """The library with the tuned accuracies of a table; pairs that it does not know are left out.

    Full fine-tuning becomes runs (`Library.tuned_runs`), linear probes their mean over seeds (`Library.probed`). Runs
    of the same name are replaced. `Library.run_sources` cites ``source``, or else the file's name.

    Raises:
        LibraryError: the table cannot be read, has other columns or values that are no accuracies, or none of its
            rows belongs to a cell of the library.
    """
    header, rows = read_table(path)
    if set(header) >= _LONG:
        runs, probes = _long(rows, path)
    elif set(header) >= _KEYS and (names := [name for name in header if name not in _NO_RUN]):
        probes = {}
        runs = {
            name: {(row["member"], row["task"]): read_accuracy(row[name], path) for row in rows if row[name]}
            for name in names
        }
    else:
        raise LibraryError(
            f"a table of tuned accuracies has the columns member, task and one for each run, or member, task, method, "
            f"seed and accuracy, but got {', '.join(header)} in {path}"
        )
    known = {(one, task) for one in library.candidate_ids for task in library.task_names}
    if not any(pair in known for values in (*runs.values(), *probes.values()) for pair in values):
        raise LibraryError(f"no row of the table belongs to a candidate and task of the library, but got {path}")
    for name, values in sorted(runs.items()):
        library = with_tuned(library, run=name, source=source or path.name, values=values)
    if not probes:
        return library
    probed = known_mean(np.stack([figures_of(library, each) for each in probes.values()], axis=-1))
    return replace(library, probed=np.where(np.isfinite(probed), probed, library.probed))


def _long(rows: Sequence[Mapping[str, str]], path: Path) -> tuple[_Runs, _Runs]:
    """Fine-tuning runs and probes, by method and seed."""
    runs: _Runs = {}
    probes: _Runs = {}
    for row in rows:
        if row["accuracy"]:
            into = probes if row["method"] == "probe" else runs
            values = into.setdefault(f"{row['method']} seed={row['seed']}", {})
            values[row["member"], row["task"]] = read_accuracy(row["accuracy"], path)
    return runs, probes


def with_tuned(library: Library, *, run: str, source: str, values: Mapping[tuple[str, str], float]) -> Library:
    """The library with the tuned accuracies of one run, such as "finetune lr=0.001 seed=0", set or replaced.

    ``values`` are accuracies in [0, 1] by (candidate id, task name); pairs that the library does not know are left out.

    Raises:
        LibraryError: a value lies outside [0, 1].
    """
    for (candidate, task), value in values.items():
        if not 0 <= value <= 1:
            raise LibraryError(f"tuned accuracy of {candidate} on {task} must lie in [0, 1], but got {value!r}")
    kept = [r for r, name in enumerate(library.run_names) if name != run]
    return replace(
        library,
        run_names=(*(library.run_names[r] for r in kept), run),
        run_sources=(*(library.run_sources[r] for r in kept), source),
        tuned_runs=np.concatenate([library.tuned_runs[:, :, kept], figures_of(library, values)[:, :, None]], axis=2),
    )


def figures_of(library: Library, values: Mapping[tuple[str, str], float]) -> FloatArray:
    """Figures by (candidate id, task name) as (M, S), NaN where none is told; other pairs are left out."""
    pairs = [[(candidate, task) for task in library.task_names] for candidate in library.candidate_ids]
    return np.array([[values.get(pair, np.nan) for pair in row] for row in pairs]).reshape(library.zero_shot.shape)
