"""QuickTune's fine-tuning runs as a setting of the replay of looking: 24 timm models on 26 data sets, looks in seconds.

Files of machinelearningnuremberg/QuickTune (BSD-3-Clause), Meta-Album extended: a table of settings, and for each data
set the accuracy after every epoch and its seconds. Truth of a model on a data set: the best final validation accuracy
of its runs, NaN where it has none. A look: the best validation accuracy after one epoch of `RUNS` of them, drawn by
chance (all where it has fewer); its cost: the seconds of these epochs.
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.screening.looking_table import Setting

RUNS = 3
_DRAWS = 10
_PREFIX = "cat:model:"
_TABLE = "quicktune_extended_table.csv.gz"
_CURVES = ("quicktune_extended_curves_perf.json.gz", "quicktune_extended_curves_cost.json.gz")


def quicktune(tables: Path) -> list[Setting]:
    """The setting; none where the folder has not all three files."""
    if not all((tables / name).is_file() for name in (_TABLE, *_CURVES)):
        return []
    with gzip.open(tables / _TABLE, "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in rows[0] if name.startswith(_PREFIX)]
    model = {row[""]: next(m for m, name in enumerate(names) if float(row[name])) for row in rows}
    reached, seconds = (_read(tables / name) for name in _CURVES)
    datasets = [name for name in reached if name != "info"]
    shape = (len(names), len(datasets))
    accuracy = np.full(shape, np.nan)
    looks, cost = np.full((*shape, _DRAWS), np.nan), np.full((*shape, _DRAWS), np.nan)
    for s, dataset in enumerate(datasets):
        for m in range(len(names)):
            runs = [run for run in reached[dataset] if model[run] == m]
            if not runs:
                continue
            accuracy[m, s] = max(reached[dataset][run][-1] for run in runs) / 100
            for draw in range(_DRAWS):
                chosen = np.random.default_rng([draw, s, m]).permutation(len(runs))[:RUNS]
                looks[m, s, draw] = max(reached[dataset][runs[place]][0] for place in chosen) / 100
                cost[m, s, draw] = sum(seconds[dataset][runs[place]][0] for place in chosen)
    setting = Setting(
        name="quicktune",
        models=tuple(name.removeprefix(_PREFIX) for name in names),
        datasets=tuple(datasets),
        accuracy=accuracy,
        imagenet=None,
        seconds=cost,
        budgets=(100.0, 1000.0, 10000.0),
        looks=looks,
    )
    return [setting]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        found: dict[str, dict[str, Any]] = json.load(stream)
    return found
