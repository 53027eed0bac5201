"""Published tables as replays of looking: what a look at a model shows, and what is true of it."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vlmsel_auto.library import published
from vlmsel_auto.records import FloatArray

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
    imagenet: int  # its column
    gigabytes: FloatArray | None = None  # (M,) to download
    draws: FloatArray = field(default_factory=lambda: np.empty((0, 0, 0)))  # (M, S, 5) where the table has them

    def kin(self, target: int) -> list[int]:
        """The data sets that share the first word of the target's name, itself included: CIFAR-10 and CIFAR-100."""
        words = [_word(name) for name in self.datasets]
        return [place for place, word in enumerate(words) if word == words[target]]

    def scene(self, target: int, seed: int) -> Scene:
        """The target with chance of its own; draws are taken in turn."""
        others = np.setdiff1d(np.arange(len(self.datasets)), self.kin(target))
        known = self.accuracy[:, others]
        if self.draws.size:
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
        return Scene(
            table=known,
            truth=truth,
            seen=seen,
            sd=sd,
            imagenet=None if self.imagenet in self.kin(target) else self.accuracy[:, self.imagenet],
            seed=(seed, target),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One target and one draw of what its images show of the M models."""

    table: FloatArray  # (M, J) the other data sets
    truth: FloatArray  # (M,)
    seen: FloatArray  # (M,) what a look shows
    sd: FloatArray  # (M,) its standard error
    imagenet: FloatArray | None  # (M,); None where the target is ImageNet or its kin
    seed: tuple[int, int]


def _word(name: str) -> str:
    """The first word of a name, lower case: ends at a digit, a blank, a hyphen or before a capital inside a word."""
    found = re.match(r"[A-Z]+(?![a-z])|[A-Za-z][a-z]*", name)
    return (found.group() if found else name).lower()


def open_clip(path: Path) -> Setting:
    """open_clip's zero-shot table: 121 models, the 35 classification data sets."""
    library = published.import_table(path, kind="open_clip").select_tasks(published.datasets())
    params = np.array([float(each.params or np.nan) for each in library.candidates])
    return Setting(
        name="openclip",
        models=library.candidate_ids,
        datasets=library.task_names,
        accuracy=library.zero_shot,
        imagenet=library.task_names.index(published.IMAGENET),
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
    """Every setting whose table is there; without a folder, or without the file in it, open_clip's shipped table."""
    given = None if tables is None else tables / "openclip_zeroshot.csv"
    whole = open_clip(given if given is not None and given.is_file() else published.open_clip_path())
    probes = None if tables is None else tables / "mieb_probes.csv"
    return [whole, small(whole), *([mieb(probes)] if probes is not None and probes.is_file() else [])]
