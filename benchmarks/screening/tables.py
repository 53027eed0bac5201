"""Published tables as replays of screening: what a screening of a model shows, and what is true of it.

QuickTune's fine-tuning runs: 24 timm models on 26 data sets, screenings in seconds. Files of
machinelearningnuremberg/QuickTune (BSD-3-Clause), Meta-Album extended: a table of settings, and for each data set the
accuracy after every epoch and its seconds. Truth of a model on a data set: the best final validation accuracy of its
runs, NaN where it has none. A screening: the best validation accuracy after one epoch of `RUNS` of them, drawn by
chance (all where it has fewer); its cost: the seconds of these epochs.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlmsel_auto.library import published
from vlmsel_auto.records import FloatArray, IntArray

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
    screenings, cost = np.full((*shape, _DRAWS), np.nan), np.full((*shape, _DRAWS), np.nan)
    for s, dataset in enumerate(datasets):
        for m in range(len(names)):
            runs = [run for run in reached[dataset] if model[run] == m]
            if not runs:
                continue
            accuracy[m, s] = max(reached[dataset][run][-1] for run in runs) / 100
            for draw in range(_DRAWS):
                chosen = np.random.default_rng([draw, s, m]).permutation(len(runs))[:RUNS]
                screenings[m, s, draw] = max(reached[dataset][runs[place]][0] for place in chosen) / 100
                cost[m, s, draw] = sum(seconds[dataset][runs[place]][0] for place in chosen)
    setting = Setting(
        name="quicktune",
        models=tuple(name.removeprefix(_PREFIX) for name in names),
        datasets=tuple(datasets),
        accuracy=accuracy,
        imagenet=None,
        seconds=cost,
        budgets=(100.0, 1000.0, 10000.0),
        screenings=screenings,
    )
    return [setting]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        found: dict[str, dict[str, Any]] = json.load(stream)
    return found


LABELS = 160  # seen of every loaded model where the table has one accuracy
SMALL = 160e6  # parameters
_BYTES = 4  # a parameter: weights are published in single precision
_MIEB_SPLIT = "test"  # 21 of the 22 probe tasks, the ones that the figures to beat were computed on
_MIEB_DRAWS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """M models on S data sets."""

    name: str
    models: tuple[str, ...]
    datasets: tuple[str, ...]
    accuracy: FloatArray  # (M, S) in [0, 1]
    imagenet: int | None  # its column
    gigabytes: FloatArray | None = None  # (M,) to download
    seconds: FloatArray = field(default_factory=lambda: np.empty((0, 0, 0)))  # (M, S, D) of a screening, where recorded
    budgets: tuple[float, ...] = (5.0, 10.0, 30.0)  # in gigabytes, or seconds where recorded
    draws: FloatArray = field(default_factory=lambda: np.empty((0, 0, 0)))  # (M, S, 5) where the table has them
    screenings: FloatArray = field(
        default_factory=lambda: np.empty((0, 0, 0))
    )  # (M, S, D) cheap ones, of another scale

    @property
    def unit(self) -> str:
        """What screenings are paid in."""
        return "seconds" if self.seconds.size else "gigabytes"

    def kin(self, target: int) -> list[int]:
        """The data sets that share the first word of the target's name, itself included: CIFAR-10 and CIFAR-100."""
        words = [word(name) for name in self.datasets]
        return [place for place, word in enumerate(words) if word == words[target]]

    def scene(self, target: int, seed: int) -> Scene:
        """The target with chance of its own; draws are taken in turn."""
        others = np.setdiff1d(np.arange(len(self.datasets)), self.kin(target))
        there = np.flatnonzero(np.isfinite(self.accuracy[:, target]))
        if self.screenings.size:
            draw = seed % self.screenings.shape[2]
            truth = self.accuracy[there, target]
            seen, error = _as_accuracy(
                self.screenings[there, target, draw],
                screenings=self.screenings[:, others, draw],
                truth=self.accuracy[:, others],
            )
            sd = np.full(len(seen), error)
        elif self.draws.size:
            draw = seed % self.draws.shape[2]
            seen = self.draws[:, target, draw]
            truth = np.delete(self.draws[:, target], draw, axis=1).mean(axis=1)
            sd = np.full(len(seen), np.sqrt(self.draws[:, others].var(axis=2, ddof=1).mean()))
        else:
            truth = self.accuracy[:, target]
            right = np.random.default_rng([seed, target]).binomial(LABELS, truth)
            seen = right / LABELS
            share = (right + 1) / (LABELS + 2)
            sd = np.sqrt(share * (1 - share) / LABELS)
        unknown = self.imagenet is None or self.imagenet in self.kin(target)
        return Scene(
            models=there,
            table=_filled(self.accuracy[:, others])[there],
            truth=truth,
            seen=seen,
            sd=sd,
            imagenet=None if unknown else self.accuracy[there, self.imagenet],
            seed=(seed, target),
            **self._costs(there, target, others, seed),
        )

    def _costs(self, there: IntArray, target: int, others: IntArray, seed: int) -> dict[str, FloatArray]:
        """What screenings of models cost, and what the other data sets lead to expect."""
        if self.seconds.size:
            draw = seed % self.seconds.shape[2]
            elsewhere = np.exp(_filled(np.log(self.seconds[:, others, draw])).mean(axis=1))
            return {"cost": self.seconds[there, target, draw], "expected": elsewhere[there]}
        return {} if self.gigabytes is None else {"cost": self.gigabytes[there], "expected": self.gigabytes[there]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One target and one draw of what its images show of the M models that have a truth on it."""

    models: IntArray  # (M,) their places in the setting
    table: FloatArray  # (M, J) the other data sets
    truth: FloatArray  # (M,)
    seen: FloatArray  # (M,) what a screening shows
    sd: FloatArray  # (M,) its standard error
    imagenet: FloatArray | None  # (M,); None where the target is ImageNet or its kin
    seed: tuple[int, int]
    cost: FloatArray | None = None  # (M,) of a screening, in the setting's ``unit``
    expected: FloatArray | None = None  # (M,) the same as the other data sets foretell it


def _filled(table: FloatArray) -> FloatArray:
    """A table (M, J) with unknown cells as the sum of what its row and its column have above the mean."""
    known = np.isfinite(table)
    if known.all():
        return table
    column = np.nanmean(table, axis=0)
    row = np.nanmean(table - column, axis=1)
    return np.where(known, table, column + row[:, None])


def _as_accuracy(shown: FloatArray, *, screenings: FloatArray, truth: FloatArray) -> tuple[FloatArray, float]:
    """Screenings (M,) as accuracies, by a line through those of other data sets (M, J), and the error of that line."""
    known = np.isfinite(screenings) & np.isfinite(truth)
    slope, start = np.polyfit(screenings[known], truth[known], 1)
    sd = float((truth[known] - slope * screenings[known] - start).std())
    return np.clip(slope * shown + start, 0.0, 1.0), sd


def word(name: str) -> str:
    """The first word of a name, lower case: ends at a digit, a blank, a hyphen or before a capital inside a word."""
    found = re.match(r"[A-Z]+(?![a-z])|[A-Za-z][a-z]*", name)
    return (found.group() if found else name).lower()


def open_clip(path: Path) -> Setting:
    """open_clip's zero-shot table: 121 models, the 35 classification data sets."""
    found = published.read_open_clip(path)
    with path.open(encoding="utf-8", newline="") as stream:
        params = np.array([1e6 * float(row["params (M)"] or np.nan) for row in csv.DictReader(stream)])
    return Setting(
        name="openclip",
        models=found.models,
        datasets=found.datasets,
        accuracy=found.accuracy,
        imagenet=found.datasets.index(published.IMAGENET),
        gigabytes=params * _BYTES / 1e9,
    )


def small(setting: Setting) -> Setting:
    """The models of a setting with at most 160 million parameters."""
    if setting.gigabytes is None:
        raise ValueError(f"the models of {setting.name} have no known size")
    kept = np.flatnonzero(setting.gigabytes <= SMALL * _BYTES / 1e9)
    return Setting(
        name=f"{setting.name}_small",
        models=tuple(setting.models[place] for place in kept),
        datasets=setting.datasets,
        accuracy=setting.accuracy[kept],
        imagenet=setting.imagenet,
        gigabytes=setting.gigabytes[kept],
    )


def mieb(path: Path) -> Setting:
    """MIEB's 16-shot linear probes: 48 models, 21 tasks, five draws each (models with one draw of a task: that one)."""
    draws: dict[tuple[str, str], list[float]] = {}
    models: dict[str, set[str]] = defaultdict(set)  # task -> models
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["reps"] and row["split"] == _MIEB_SPLIT:
                found = [float(each) for each in row["reps"].split()]
                draws[row["model"], row["task"]] = (found * _MIEB_DRAWS)[:_MIEB_DRAWS]
                models[row["task"]].add(row["model"])
    tasks = tuple(sorted(models))
    names = tuple(sorted(set.intersection(*models.values())))
    stack = np.array([[draws[model, task] for task in tasks] for model in names])
    return Setting(
        name="mieb",
        models=names,
        datasets=tasks,
        accuracy=stack.mean(axis=2),
        imagenet=tasks.index("Imagenet1k"),
        draws=stack,
    )


def read_settings(tables: Path | None) -> list[Setting]:
    """open_clip's settings, of its shipped table where the folder has no newer one, and MIEB's where it is there."""
    given = None if tables is None else tables / "openclip_zeroshot.csv"
    whole = open_clip(given if given is not None and given.is_file() else published.SHIPPED)
    probes = None if tables is None else tables / "mieb_probes.csv"
    return [whole, small(whole), *([mieb(probes)] if probes is not None and probes.is_file() else [])]
