"""Worlds in which choice.py lets searches run: what a trial of an arm (candidate, method) measures, and the truth."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from vlmsel_auto.records import FloatArray

Arm = tuple[str, str]  # candidate, method
OWN, STAYS = 0.6, 0.6  # shares of the sampling variance: a candidate's own; of that, the same in all trials of an arm


def recorded(path: Path, task: str) -> dict[Arm, tuple[float, float]]:
    """Accuracy and seconds of each arm on a task, first seed. Seconds above 60 are pauses of the machine."""
    with path.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["task"] == task and row["seed"] == "0"]
    return {(row["member"], row["method"]): (float(row["accuracy"]), min(60.0, float(row["seconds"]))) for row in rows}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one trial measures."""

    truth: float
    metric: float
    soft: float | None


class World(Protocol):
    """One task with one validation split."""

    @property
    def seconds(self) -> Mapping[Arm, float]:
        """What a trial takes."""
        ...

    @property
    def best(self) -> float:
        """Truth of the best arm."""
        ...

    def trial(self, arm: Arm, *, lost: float) -> Trial:
        """A trial whose hyperparameters lose ``lost`` of the metric."""
        ...


@dataclass(kw_only=True)
class Accuracies:
    """Validation metrics are recorded accuracies with binomial noise."""

    arms: Mapping[Arm, tuple[float, float]]  # accuracy, seconds
    images: int
    seed: int
    _luck: dict[Arm, float] = field(default_factory=dict)
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng([self.seed, self.images])

    @property
    def seconds(self) -> Mapping[Arm, float]:
        """What a trial takes."""
        return {arm: seconds for arm, (_, seconds) in self.arms.items()}

    @property
    def best(self) -> float:
        """Accuracy of the best arm."""
        return max(accuracy for accuracy, _ in self.arms.values())

    def trial(self, arm: Arm, *, lost: float) -> Trial:
        """A trial whose hyperparameters lose ``lost`` of the metric."""
        truth = float(np.clip(self.arms[arm][0] - lost, 0.001, 0.999))
        own = self._luck.setdefault(arm, self._rng.normal())
        noise = np.sqrt(STAYS) * own + np.sqrt(1 - STAYS) * self._rng.normal()
        seen = truth + noise * np.sqrt(OWN * truth * (1 - truth) / self.images)
        return Trial(truth=truth, metric=round(float(np.clip(seen, 0, 1)) * self.images) / self.images, soft=None)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What every arm says of every test image of a task."""

    right: Mapping[Arm, FloatArray]  # (n,) 0 or 1
    probability: Mapping[Arm, FloatArray]  # (n,) of the true class

    @property
    def images(self) -> int:
        """Number of test images."""
        return len(next(iter(self.right.values())))


def read_images(folder: Path) -> dict[str, Told]:
    """By task, as `tuned_truth.py --images` writes it; empty where there is no such folder."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        parts: dict[str, dict[Arm, FloatArray]] = {"right": {}, "probability": {}}
        for name, values in load_file(path).items():
            kind, member, method = name.split("|")
            parts[kind][member, method] = values.astype(np.float64)
        found[path.stem] = Told(right=parts["right"], probability=parts["probability"])
    return found


@dataclass(frozen=True, kw_only=True)
class Images:
    """Some test images are the validation split, the others the truth."""

    told: Told
    seconds: Mapping[Arm, float]
    chosen: NDArray[np.bool_]  # (n,) whether an image is a validation image

    @classmethod
    def draw(cls, told: Told, arms: Mapping[Arm, tuple[float, float]], *, images: int, seed: int) -> Self:
        """Draw the validation split."""
        chosen = np.zeros(told.images, dtype=bool)
        chosen[np.random.default_rng([seed, images]).choice(told.images, images, replace=False)] = True
        return cls(told=told, seconds={arm: arms[arm][1] for arm in told.right}, chosen=chosen)

    @property
    def best(self) -> float:
        """Accuracy of the best arm on the other images."""
        return max(float(values[~self.chosen].mean()) for values in self.told.right.values())

    def trial(self, arm: Arm, *, lost: float) -> Trial:
        """A trial whose hyperparameters lose ``lost`` of all three."""
        right, probability = self.told.right[arm], self.told.probability[arm]
        return Trial(
            truth=float(right[~self.chosen].mean()) - lost,
            metric=max(0.0, float(right[self.chosen].mean()) - lost),
            soft=max(0.0, float(probability[self.chosen].mean()) - lost),
        )


def errors_of(told: Told) -> dict[str, float]:
    """The constants of `vlmsel_auto.planning.soft_metric` on one task: what arms do not have in common on an image."""
    arms = list(told.right)
    right, sure = (np.stack([part[arm] for arm in arms]) for part in (told.right, told.probability))
    m, n = right.shape
    own_right, own_sure = (_own(part) for part in (right, sure))
    accuracy = right.mean(axis=1)
    metric, soft, both = (
        float((a * b).mean() * m / (m - 1))
        for a, b in ((own_right, own_right), (own_sure, own_sure), (own_right, own_sure))
    )
    gaps = sure.mean(axis=1) - accuracy
    return {
        "own": metric / float((accuracy * (1 - accuracy)).mean()),
        "soft": soft / metric,
        "both": both / metric,
        "calibration_sd": float(np.sqrt(max(0.0, gaps.var(ddof=1) - (metric + soft - 2 * both) / n))),
    }


def _own(table: FloatArray) -> FloatArray:
    """Deviations (arms, images) from the image's mean and from the arm's."""
    less = table - table.mean(axis=0)
    own: FloatArray = less - less.mean(axis=1, keepdims=True)
    return own
