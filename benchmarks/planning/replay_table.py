"""Recorded tuning trials as a table of arms: data set x model x learning rate x epochs."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmsel_auto.records import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Accuracy and cost of every arm (model x setting) on every data set."""

    datasets: tuple[str, ...]
    models: tuple[str, ...]
    rates: tuple[str, ...]
    epochs: tuple[str, ...]
    values: FloatArray  # (S, M, R, E) in [0, 1]
    costs: FloatArray  # (S, M, R, E), mean 1 on every data set

    @property
    def flat(self) -> FloatArray:
        """(S, A)."""
        return self.values.reshape(len(self.datasets), -1)

    @property
    def candidates(self) -> IntArray:
        """(A,) model of each arm."""
        return np.repeat(np.arange(len(self.models)), len(self.rates) * len(self.epochs))

    @property
    def settings(self) -> IntArray:
        """(A,) setting of each arm."""
        return np.tile(np.arange(len(self.rates) * len(self.epochs)), len(self.models))

    @property
    def digest(self) -> str:
        """Names the accuracies: recorded searches of another table are not taken for this one's."""
        return hashlib.sha256(np.ascontiguousarray(self.values).tobytes()).hexdigest()[:12]

    def arm(self, model: int, rate: int, epoch: int) -> int:
        """Index into the A arms."""
        return (model * len(self.rates) + rate) * len(self.epochs) + epoch

    def kin(self, dataset: int) -> list[int]:
        """``dataset`` and those that have its name in another collection (cifar100 and vtab/cifar100)."""
        names = [name.rpartition("/")[2] for name in self.datasets]
        return [place for place, name in enumerate(names) if name == names[dataset]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One data set to search on, and the others to learn from."""

    table: Table
    target: int

    @property
    def values(self) -> FloatArray:
        """(M, R, E) of the target."""
        return np.asarray(self.table.values[self.target])

    @property
    def costs(self) -> FloatArray:
        """(A,) of the target."""
        return np.asarray(self.table.costs[self.target]).ravel()

    @property
    def others(self) -> FloatArray:
        """(S', A): every data set but the target and its kin."""
        return np.delete(self.table.flat, self.table.kin(self.target), axis=0)

    def scores(self) -> FloatArray:
        """(M,) minus the average rank of each model's best accuracy on the others."""
        best = self.others.reshape(len(self.others), len(self.table.models), -1).max(axis=2)
        ranks: FloatArray = (-best).argsort(axis=1).argsort(axis=1).mean(axis=0)
        return -ranks

    def order(self) -> list[int]:
        """Models, best average rank first."""
        return [int(model) for model in np.argsort(-self.scores(), kind="stable")]

    def usual_setting(self) -> tuple[int, int]:
        """Rate and epochs of the best mean over models and the others."""
        by_setting = self.others.reshape(len(self.others), len(self.table.models), -1).mean(axis=(0, 1))
        rate, epoch = divmod(int(by_setting.argmax()), len(self.table.epochs))
        return rate, epoch


@dataclass(frozen=True, kw_only=True)
class _Cell:
    keys: tuple[str, str, str, str]
    value: float
    cost: float


def _probe_cell(row: Mapping[str, str]) -> _Cell:
    """A row of the CLIP benchmark's linear probes. No seconds are recorded: cost is GMACs per image x epochs.

    Its column gmacs_total is the pre-training's cost, GMACs per image x images seen then.
    """
    model = f"{row['model']}/{row['pretrained']}"
    cost = float(row["gmacs_total"]) / float(row["samples_seen"]) * float(row["epochs"])
    return _Cell(keys=(row["dataset"], model, row["lr"], row["epochs"]), value=float(row["lp_acc1"]), cost=cost)


def _cells(rows: list[dict[str, str]], *, shots: str) -> list[_Cell]:
    if "fewshot_k" in rows[0]:
        return [_probe_cell(row) for row in rows if row["fewshot_k"] == shots]
    if "method" in rows[0]:  # benchmarks/tuning/tuned_truth.py: seconds are recorded
        return [
            _Cell(
                keys=(row["task"], row["member"], row["method"], ""),
                value=float(row["accuracy"]),
                cost=float(row["seconds"]),
            )
            for row in rows
            if row["accuracy"]
        ]
    names = [name for name in rows[0] if name.startswith("finetune")]
    return [
        _Cell(keys=(row["task"], row["member"], name, ""), value=float(row[name]), cost=1.0)
        for row in rows
        for name in names
        if row[name]
    ]


def _natural(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return 0.0, text


def read_table(path: Path, *, shots: str) -> Table:
    """Read the CLIP benchmark's probe trials or the mini zoo's tuned accuracies (wide, or by method and seed).

    Seeds are averaged; a data set that lacks an arm is left out.

    Args:
        path: the CSV file.
        shots: "10", "25" or "-1" (all images); only probe trials come in several.

    Raises:
        SystemExit: no such file, or no whole data set in it.
    """
    if not path.is_file():
        raise SystemExit(
            f"there is no table {path}: the probe trials are probe_benchmark/scaling_experiment_data2.json of "
            "LAION-AI/CLIP_benchmark written as CSV, the mini zoo's are made by benchmarks/tuning/tuned_truth.py; "
            "neither is in this repository"
        )
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    cells = _cells(rows, shots=shots) if rows else []
    axes = [tuple(sorted({cell.keys[axis] for cell in cells}, key=_natural)) for axis in range(4)]
    shape = [len(axis) for axis in axes]
    counts, values, costs = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for cell in cells:
        place = tuple(axis.index(key) for axis, key in zip(axes, cell.keys, strict=True))
        counts[place] += 1
        values[place] += cell.value
        costs[place] += cell.cost
    whole = np.asarray((counts > 0).all(axis=(1, 2, 3)))
    if not whole.any():
        raise SystemExit(f"{path} holds no data set with every arm for shots {shots!r}, among {len(rows)} rows")
    values, costs = values[whole] / counts[whole], costs[whole] / counts[whole]
    return Table(
        datasets=tuple(name for place, name in enumerate(axes[0]) if whole[place]),
        models=axes[1],
        rates=axes[2],
        epochs=axes[3],
        values=values,
        costs=costs / costs.mean(axis=(1, 2, 3), keepdims=True),
    )
