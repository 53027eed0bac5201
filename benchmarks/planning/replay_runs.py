"""Runs of strategies, in several processes; those that need Optuna only are recorded and not done again."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from benchmarks.planning.replay_strategies import DETERMINISTIC, OPTUNA_ONLY, STRATEGIES
from benchmarks.planning.replay_table import Scene, Table


@dataclass(kw_only=True)
class Runs:
    """Arms in the order in which they were tried, by strategy, data set and seed."""

    table: Table
    path: Path | None = None  # JSON lines; None: nothing is recorded
    known: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what was recorded; a line that was cut off while being written is passed over."""
        if self.path is None or not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.known[row["key"]] = row["arms"]

    def key(self, name: str, target: int, seed: int) -> str:
        """Names one run: another table or Optuna gives other runs."""
        return "|".join((self.table.digest, optuna.__version__, name, self.table.datasets[target], str(seed)))

    def add(self, name: str, target: int, seed: int, arms: list[int]) -> None:
        """Keep a run, and record it where it can be taken again."""
        key = self.key(name, target, seed)
        self.known[key] = arms
        if self.path is not None and name in OPTUNA_ONLY:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": key, "arms": arms}) + "\n")

    def of(self, name: str, *, seeds: int) -> list[list[list[int]]]:
        """Data sets x seeds x trials; one seed where chance has no part."""
        count = 1 if name in DETERMINISTIC else seeds
        return [
            [self.known[self.key(name, target, seed)] for seed in range(count)]
            for target in range(len(self.table.datasets))
        ]


def _quiet(nice: int) -> None:
    os.nice(nice)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def _run(name: str, table: Table, target: int, seed: int) -> tuple[str, int, int, list[int]]:
    own = 1_000 * seed + target  # else all data sets would share one stream of chance
    return name, target, seed, STRATEGIES[name](Scene(table=table, target=target), own)


def run_all(runs: Runs, *, names: Sequence[str], seeds: int, jobs: int, nice: int = 0) -> int:
    """Do every run that is not known yet; return how many were done."""
    table = runs.table
    wanted = [
        (name, target, seed)
        for name in names
        for seed in range(1 if name in DETERMINISTIC else seeds)
        for target in range(len(table.datasets))
        if runs.key(name, target, seed) not in runs.known
    ]
    with ProcessPoolExecutor(max_workers=jobs, initializer=_quiet, initargs=(nice,)) as pool:
        futures = [pool.submit(_run, name, table, target, seed) for name, target, seed in wanted]
        for future in as_completed(futures):
            runs.add(*future.result())
    return len(wanted)
