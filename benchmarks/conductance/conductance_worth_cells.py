"""Cells of `conductance_worth.py`: conductance, image by image and block by block, of few images a task.

Sixteen labelled images (four classes, four of each; more of each where a task has fewer classes), 5 points of the path
(9 with kinks), every member of the mini zoo. What is measured, by pass:

- votes: embeddings of 48 unlabelled images;
- margin: F = margin, all sixteen;
- rival: F = class minus its strongest rival, of the predicted class and of the true one, 4 images;
- moved: F = margin of two images flipped, shifted and cropped;
- norm: F = norm of the embedding, all sixteen.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.ranking.research import Research
from vlmsel_auto.cache import Store, digest
from vlmsel_auto.conductance.layer import Conductance, choose_integrator, conductance
from vlmsel_auto.conductance.scalars import Margin, Norm, Scalar
from vlmsel_auto.library.records import Library
from vlmsel_auto.measuring.cells import CellSettings, unlabelled_images
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import FloatArray, IntArray, Task
from vlmsel_auto.tasks import split
from vlmsel_auto.tasks.task import load_task

IMAGES, RIVALS, MOVED, VOTED = 16, 4, 2, 48  # images a task: margin and norm, rivals, augmented, embedded for votes
POINTS = 5
Pass = Literal["margin", "rival", "moved", "norm", "votes"]
PASSES: tuple[Pass, ...] = ("votes", "margin", "rival", "moved", "norm")


@dataclass(frozen=True, kw_only=True, eq=False)
class Rival:
    """F = scaled cosine of one class minus that of its strongest rival; the class predicted, or a given one."""

    text_features: Tensor  # (K, D)
    logit_scale: float
    label: int | None
    name: str = "rival"

    def target(self, embedding: Tensor, /) -> Tensor:
        """Class and rival as class * K + rival."""
        cosine = functional.normalize(embedding, dim=-1) @ self.text_features.T
        first = cosine.argmax(dim=-1) if self.label is None else torch.full((len(embedding),), self.label)
        cosine[torch.arange(len(cosine)), first] = -torch.inf
        return first * len(self.text_features) + cosine.argmax(dim=-1)

    def value(self, embedding: Tensor, target: Tensor, /) -> Tensor:
        """F of each row."""
        k, text = len(self.text_features), self.text_features
        value: Tensor = (functional.normalize(embedding, dim=-1) * (text[target // k] - text[target % k])).sum(dim=-1)
        return self.logit_scale * value


def images_of(task: Task) -> IntArray:
    """The labelled images, class by class in a seeded order, each class's first four labels first."""
    classes = np.random.default_rng(0).permutation(len(task.classes))[:4]
    four, many = (split.few_shot(task.labels, task.train, shots=shots, seed=0) for shots in (4, 8))
    kept = []
    for label in classes:
        first = four[task.labels[four] == label]
        rest = np.setdiff1d(many[task.labels[many] == label], first)
        kept += [*first, *rest][: IMAGES // len(classes)]
    return np.array(kept, dtype=np.int64)


def place_in_class(labels: IntArray) -> IntArray:
    """How many images of the same class come before each."""
    return np.array([np.sum(labels[:i] == label) for i, label in enumerate(labels)], dtype=np.int64)


def each_class(labels: IntArray, n: int) -> IntArray:
    """Places of n images, the first ones of every class."""
    return np.sort(np.argsort(place_in_class(labels), kind="stable")[:n])


def views(images: Tensor) -> Tensor:
    """Each image flipped, shifted right by an eighth, and its middle 80 % enlarged: (3 n, C, H, W)."""
    size = images.shape[-1]
    step, edge = size // 8, round(size * 0.1)
    shifted = functional.pad(images, (step, 0))[..., :size]
    middle = images[..., edge : size - edge, edge : size - edge]
    crop = functional.interpolate(middle, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([images.flip(-1), shifted, crop])


def measure(kind: Pass, model: LoadedModel, task: Task, text: Tensor) -> dict[str, FloatArray]:
    """One candidate on one task."""
    if kind == "votes":
        chosen = unlabelled_images(task, CellSettings())[:VOTED]
        with torch.no_grad():
            return {"features": model.embed(read(model, task, chosen)).numpy()}
    chosen = images_of(task)
    labels = task.labels[chosen]
    scale = model.logit_scale
    margin = Margin(text_features=text, logit_scale=scale)
    if kind == "margin":
        pixels = read(model, task, chosen)
        with torch.no_grad():
            features = model.embed(pixels).numpy()
        return {"features": features, **arrays(profile(model, pixels, margin))}
    if kind == "norm":
        return {"activity": profile(model, read(model, task, chosen), Norm()).activity}
    if kind == "moved":
        return arrays(profile(model, views(read(model, task, chosen[each_class(labels, MOVED)])), margin))
    some = each_class(labels, RIVALS)
    pixels, labels = read(model, task, chosen[some]), labels[some]
    free = profile(model, pixels, Rival(text_features=text, logit_scale=scale, label=None))
    found = arrays(free)
    true = {name: values.copy() for name, values in found.items()}
    for label in np.unique(labels):
        wrong = np.flatnonzero((labels == label) & (free.target // len(text) != label))
        if len(wrong):
            scalar = Rival(text_features=text, logit_scale=scale, label=int(label))
            for name, values in arrays(profile(model, pixels[wrong], scalar)).items():
                true[name][wrong] = values
    return found | {f"true_{name}": values for name, values in true.items()}


def read(model: LoadedModel, task: Task, images: IntArray) -> Tensor:
    """Normalised pixels."""
    return model.normalise(task.pixels.read(model.candidate.view, images))


def profile(model: LoadedModel, pixels: Tensor, scalar: Scalar) -> Conductance:
    """Conductance at few points."""
    points = POINTS if choose_integrator(model.visual) == "spectral" else 2 * POINTS - 1
    return conductance(model.visual, pixels, scalar=scalar, points=points)


def arrays(found: Conductance) -> dict[str, FloatArray]:
    """What is kept of images (n,): channels of all blocks side by side."""
    return {
        "activity": found.activity,
        "signature": np.concatenate(found.signature, axis=1),
        "absolute": np.concatenate(found.absolute, axis=1),
        "total": found.total,
        "target": found.target.astype(np.float64),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """Measured cells of a library's candidates on its tasks."""

    library: Library
    research: Research
    folder: Path  # of the tasks
    records: Path
    held: dict[tuple[Pass, int, int], dict[str, FloatArray]] = field(default_factory=dict)  # cells that were read

    @property
    def members(self) -> int:
        """Number M of candidates."""
        return len(self.library.candidates)

    def get(self, kind: Pass, m: int, s: int) -> dict[str, FloatArray]:
        """One cell.

        Raises:
            FileNotFoundError: it was not measured.
        """
        if (kind, m, s) not in self.held:
            kept = Store(self.records).get(self._key(kind, m, s))
            if kept is None:
                raise FileNotFoundError(f"measure pass {kind!r} first; no cell {m}, {s} in {self.records}")
            self.held[kind, m, s] = {name: values.astype(np.float64) for name, values in kept[0].items()}
        return self.held[kind, m, s]

    def text(self, m: int, s: int) -> FloatArray:
        """Class weights (K, D)."""
        return self.research.class_text[m][self.research.class_slices()[s]]

    @cached_property
    def labels(self) -> list[IntArray]:
        """Classes of the labelled images of every task."""
        tasks = [load_task(self.folder / name, workdir=self.records / "work") for name in self.library.task_names]
        return [task.labels[images_of(task)] for task in tasks]

    def blocks(self, m: int) -> list[slice]:
        """Where each block's channels lie in a cell's channels."""
        ends = np.cumsum(self.research.candidates[m].widths).tolist()
        return [slice(a, b) for a, b in itertools.pairwise([0, *ends])]

    def measure(self, passes: Sequence[Pass]) -> None:
        """Measure every cell that is not kept yet."""
        models = {one.id: zoo.load(one, text=False) for one in mini_zoo()}
        store = Store(self.records)
        for kind in passes:
            for s, name in enumerate(self.library.task_names):
                task = None
                for m, candidate in enumerate(self.library.candidate_ids):
                    key = self._key(kind, m, s)
                    if store.get(key) is not None:
                        continue
                    task = task or load_task(self.folder / name, workdir=self.records / "work")
                    text = torch.tensor(self.text(m, s), dtype=torch.float32)
                    found = measure(kind, models[candidate], task, text)
                    store.put(key, {n: np.asarray(v, np.float32) for n, v in found.items()}, {})
                print(kind, name, flush=True)

    def _key(self, kind: Pass, m: int, s: int) -> str:
        return digest("worth", 1, kind, self.library.candidates[m].sha256, self.library.tasks[s].digest)
