"""Recorded trials as worlds in which `workers_replay.py` lets searches run.

- ``quicktune``: 24 timm models on 26 data sets, 129 to 213 real fine-tuning runs a set with accuracy and seconds of
  every epoch (machinelearningnuremberg/QuickTune, BSD-3-Clause, Meta-Album extended). A candidate's trials are its
  recorded runs in an order that chance makes; one that has a single epoch diverged at once. The ranking is the average
  rank on the other sets. The search has no end but the goal: a minute costs nothing.
- ``tuned truth``: 20 models by 2 methods on 27 tasks, accuracies and seconds of `tuned_truth.py`, the metric with the
  binomial noise of 100 images; other settings of an arm lose a little. The search ends where the product's would.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.planning.choice import RESULTS, Accuracies, Arm, ranking_of, recorded
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.models import candidates as catalogue
from vlmsel_auto.planning.method import Method, Trains
from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.records import Basis, Candidate, ImageView, Interval, RankedCandidate, Ranking
from vlmsel_auto.tuning.methods import FINETUNE, PROBE

IMAGES = 100  # for validation, of the tuned truth
LOCAL_LOSS = 0.015  # standard deviation of what other settings lose there
RANKING_SD = 0.7  # of the average rank, in standard units
FREE = replace(POLICY, least_gain=0.0, price=0.0)  # a minute costs nothing
_PREFIX = "cat:model:"
_TABLE = "quicktune_extended_table.csv.gz"
_CURVES = ("quicktune_extended_curves_perf.json.gz", "quicktune_extended_curves_cost.json.gz")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A recorded trial."""

    metrics: tuple[float, ...]  # after each epoch, as the search sees them
    seconds: tuple[float, ...]  # of each epoch
    truth: float
    failed: bool = False


class World(Protocol):
    """One task; a new one for each replay."""

    candidates: Sequence[Candidate]
    ranking: Ranking
    methods: Sequence[Method]
    images: int | None  # for validation; None: metrics are exact
    policy: Policy
    best: float  # truth of the best run
    least: float  # seconds of the shortest run within a point of it
    endless: bool  # the search has no end but the goal

    def has(self, candidate: str) -> bool:
        """Whether there is a further run of the candidate."""
        ...

    def take(self, arm: Arm) -> Run:
        """The next run of candidate and method."""
        ...


@dataclass(kw_only=True)
class QuickTune:
    """One data set."""

    runs: Mapping[str, Sequence[Run]]  # by model
    ranking: Ranking
    candidates: Sequence[Candidate]
    seed: int
    images: int | None = None
    methods: Sequence[Method] = (FINETUNE,)
    policy: Policy = FREE
    endless: bool = True
    best: float = field(init=False)
    least: float = field(init=False)
    _left: dict[str, list[Run]] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self._left = {name: [self.runs[name][n] for n in rng.permutation(len(self.runs[name]))] for name in self.runs}
        every = [run for runs in self.runs.values() for run in runs]
        self.best = max(run.truth for run in every)
        self.least = min(sum(run.seconds) for run in every if self.best - run.truth <= 0.01)

    def has(self, candidate: str) -> bool:
        """Whether there is a further run of the candidate."""
        return bool(self._left[candidate])

    def take(self, arm: Arm) -> Run:
        """The next run."""
        return self._left[arm[0]].pop()


@dataclass(kw_only=True)
class TunedTruth:
    """One task."""

    arms: Mapping[Arm, tuple[float, float]]
    ranking: Ranking
    seed: int
    candidates: Sequence[Candidate]
    images: int | None = IMAGES
    methods: Sequence[Method] = (PROBE, FINETUNE)
    policy: Policy = POLICY
    endless: bool = False
    best: float = field(init=False)
    least: float = field(init=False)
    _taken: set[Arm] = field(default_factory=set)
    _drawn: Accuracies = field(init=False)
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._drawn = Accuracies(arms=self.arms, images=IMAGES, seed=self.seed)
        self.best = self._drawn.best
        self.least = min(seconds for accuracy, seconds in self.arms.values() if self.best - accuracy <= 0.01)

    def has(self, candidate: str) -> bool:
        """Always."""
        del candidate
        return True

    def take(self, arm: Arm) -> Run:
        """The first is as recorded, later ones lose a little by their settings."""
        lost = 0.0 if arm not in self._taken else abs(self._rng.normal(0, LOCAL_LOSS))
        self._taken.add(arm)
        drawn = self._drawn.trial(arm, lost=lost)
        return Run(metrics=(drawn.metric,), seconds=(self.arms[arm][1],), truth=drawn.truth)


def is_tower(world: World, method: str) -> bool:
    """Whether a method has a learning curve."""
    return any(each.name == method and each.trains is Trains.TOWER for each in world.methods)


def tuned_truth(*, seed: int) -> Iterator[tuple[str, World]]:
    """Every task of the table."""
    library = load(default_library_path())
    for column, name in enumerate(library.task_names):
        arms = recorded(RESULTS / "tuned-truth.csv", name)
        if arms:
            ranking = ranking_of(library, column, reverse=False)
            yield name, TunedTruth(arms=arms, ranking=ranking, seed=seed, candidates=catalogue.mini_zoo())


def quicktune(tables: Path, *, seed: int) -> Iterator[tuple[str, World]]:
    """Every data set; none where the folder has not all three files."""
    if not all((tables / name).is_file() for name in (_TABLE, *_CURVES)):
        return
    with gzip.open(tables / _TABLE, "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in rows[0] if name.startswith(_PREFIX)]
    model = {row[""]: next(each for each in names if float(row[each])).removeprefix(_PREFIX) for row in rows}
    metrics, seconds = (_read(tables / name) for name in _CURVES)
    sets: dict[str, dict[str, list[Run]]] = {name: {} for name in metrics if name != "info"}
    for name, runs in sets.items():
        for run, curve in metrics[name].items():
            values = tuple(value / 100 for value in curve)
            made = Run(metrics=values, seconds=tuple(seconds[name][run]), truth=values[-1], failed=len(values) == 1)
            runs.setdefault(model[run], []).append(made)
    for name, runs in sets.items():
        candidates = _candidates(sorted(runs), [sets[other] for other in sets if other != name])
        ranking = _average_rank(name, candidates, [sets[other] for other in sets if other != name])
        yield name, QuickTune(runs=runs, ranking=ranking, candidates=candidates, seed=seed)


def _candidates(models: Sequence[str], others: Sequence[Mapping[str, Sequence[Run]]]) -> list[Candidate]:
    """Their relative operations are the seconds that an epoch takes on the other sets."""
    found = []
    for name in models:
        paces = []
        for runs in others:
            typical = {m: np.median([np.mean(run.seconds) for run in each]) for m, each in runs.items()}
            if name in typical:
                paces.append(typical[name] / np.median(list(typical.values())))
        found.append(
            Candidate(id=name, source="open_clip", arch=name, tag="", view=ImageView(size=224),
                      family=name.split("_")[0], flops=float(1e9 * np.median(paces)))
        )  # fmt: skip
    return found


def _average_rank(task: str, candidates: Sequence[Candidate], others: Sequence[Mapping[str, Sequence[Run]]]) -> Ranking:
    scores = []
    for one in candidates:
        ranks = []
        for runs in others:
            reached = {name: max(run.truth for run in each) for name, each in runs.items()}
            if one.id in reached:
                ranks.append(sum(value > reached[one.id] for value in reached.values()))
        scores.append(-float(np.mean(ranks)))
    standard = (np.array(scores) - np.mean(scores)) / np.std(scores)
    lines = [
        RankedCandidate(candidate=one.id, score=float(score), sd=RANKING_SD, prior=None, evidence=None, p_best=0.0,
                        p_top5=0.0, rank_interval=Interval(low=1, high=len(candidates)), basis=Basis.LIBRARY)
        for one, score in zip(candidates, standard, strict=True)
    ]  # fmt: skip
    return Ranking(task=task, ranked=tuple(sorted(lines, key=lambda line: -line.score)))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        found: dict[str, dict[str, Any]] = json.load(stream)
    return found
