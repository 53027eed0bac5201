"""Cells of `conductance_worth.py`: conductance, image by image and block by block, of few images a task.

Sixteen labelled images (four classes, four of each; more of each where a task has fewer classes), 5 points of the path
(9 with kinks), every member of the mini zoo. What is measured, by pass:

- votes: embeddings of 48 unlabelled images;
- margin: F = margin, all sixteen;
- rival: F = class minus its strongest rival, of the predicted class and of the true one, 4 images;
- moved: F = margin of two images flipped, shifted and cropped;
- norm: F = norm of the embedding, all sixteen.

Signals made of them, (M, S): candidates, tasks; each says what conductance could tell of accuracy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy import special
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
from vlmsel_auto.ranking.evidence.consensus import likeness
from vlmsel_auto.ranking.evidence.zeroshot import CLARITY, cosines
from vlmsel_auto.ranking.label_belief import Belief, believe, prior_weights
from vlmsel_auto.ranking.scaling import standardise, unit_rows
from vlmsel_auto.ranking.signals import TOP2_MARGIN, Embedded, evidence_scores
from vlmsel_auto.records import UNLABELLED, FloatArray, IntArray, Task
from vlmsel_auto.tasks import split
from vlmsel_auto.tasks.task import load_task

Grid = Mapping[str, FloatArray]  # name -> (M, S)
Activity = tuple[FloatArray, ...]  # of each candidate (S, B)


def by_thirds(name: str, values: Sequence[float] | FloatArray) -> dict[str, float]:
    """Means over the first, middle and last third of the blocks."""
    parts = np.array_split(np.asarray(values, dtype=np.float64), 3)
    return {f"{name} {k}": float(part.mean()) for k, part in enumerate(parts) if part.size}


def alike(vectors: FloatArray, labels: IntArray) -> float:
    """How much more alike images (n, D) of one class are than others: difference of mean cosines, in deviations."""
    unit = unit_rows(vectors - vectors.mean(axis=0))
    first, second = np.triu_indices(len(unit), 1)
    cosine, same = (unit @ unit.T)[first, second], labels[first] == labels[second]
    if same.all() or not same.any():
        return np.nan
    return float((cosine[same].mean() - cosine[~same].mean()) / max(float(cosine.std()), 1e-12))


def purity(name: str, total: FloatArray | float, activity: FloatArray) -> dict[str, float]:
    """Log of F(x) - F(x0) over sum |C| (B,), means over images: how little conductances cancel each other."""
    return by_thirds(name, np.log(max(abs(float(np.mean(total))), 1e-9)) - np.log(activity))


def stability(moved: Grid, still: Grid, places: IntArray, blocks: Sequence[slice]) -> dict[str, float]:
    """How little profiles move when images are flipped, shifted or cropped; as a control, how little F does."""
    at = np.tile(places, 3)
    away = np.abs(np.log(moved["activity"]) - np.log(still["activity"][at])).mean(axis=0)
    kept = [
        (unit_rows(moved["signature"][:, b]) * unit_rows(still["signature"][at][:, b])).sum(1).mean() for b in blocks
    ]
    away_total = np.abs(moved["total"] - still["total"][at]).mean() / max(float(still["total"].std()), 1e-9)
    same = (moved["target"] == still["target"][at]).mean()
    return {
        **by_thirds("steady activity", -away),
        **by_thirds("steady signature", kept),
        "steady F": -float(away_total),
        "steady class": float(same),
    }


def grid(cells: Cells, score: Callable[[int, int], dict[str, float]]) -> dict[str, FloatArray]:
    """Scores of every cell by name."""
    shape, found = (cells.members, len(cells.library.tasks)), dict[str, FloatArray]()
    for m, s in np.ndindex(shape):
        for name, value in score(m, s).items():
            found.setdefault(name, np.full(shape, np.nan))[m, s] = value
    return found


class Signals:
    """New signals, by what they are made of."""

    def __init__(self, cells: Cells) -> None:
        self.cells, self.library = cells, cells.library
        self.margins = self.library.signals[:, :, self.library.signal_names.index(TOP2_MARGIN)]

    @cached_property
    def pseudo(self) -> list[IntArray]:
        """Classes of the measured images by the votes of all candidates, as `consensus` weighs them."""
        found = []
        for s, task in enumerate(self.library.tasks):
            named = np.stack([self.cells.get("margin", m, s)["target"] for m in range(self.cells.members)])
            votes = np.stack(
                [np.exp(3.0 * standardise(self.margins[:, s])) @ (named == k) for k in range(task.n_classes)]
            )
            found.append(np.asarray(votes.argmax(axis=0), dtype=np.int64))
        return found

    def agreement(self, part: str, *, shots: int) -> dict[str, FloatArray]:
        """`alike` of "signature", "absolute" or "features", by real classes, or consensus ones without labels."""

        def score(m: int, s: int) -> dict[str, float]:
            real = self.cells.labels[s]
            kept = place_in_class(real) < (shots or len(real))
            rows = self.cells.get("margin", m, s)[part][kept]
            labels = (real if shots else self.pseudo[s])[kept]
            if part == "features":
                return {part: alike(rows, labels)}
            return by_thirds(part, [alike(rows[:, b], labels) for b in self.cells.blocks(m)])

        return grid(self.cells, score)

    def purity(self, kind: Pass, prefix: str = "") -> dict[str, FloatArray]:
        """`purity` of the measured cells."""

        def score(m: int, s: int) -> dict[str, float]:
            cell = self.cells.get(kind, m, s)
            return purity(f"{prefix}purity", cell[f"{prefix}total"], cell[f"{prefix}activity"].mean(axis=0))

        return grid(self.cells, score)

    @cached_property
    def stability(self) -> dict[str, FloatArray]:
        """`stability` of the measured cells."""

        def score(m: int, s: int) -> dict[str, float]:
            moved, still = self.cells.get("moved", m, s), self.cells.get("margin", m, s)
            return stability(moved, still, each_class(self.cells.labels[s], MOVED), self.cells.blocks(m))

        return grid(self.cells, score)

    @cached_property
    def kept(self) -> dict[str, dict[str, FloatArray]]:
        """Without any pass: from the activities of the library and the channels of the research figures."""
        log = [np.log(one) for one in self.library.activity]

        def evenness(m: int, s: int) -> dict[str, float]:
            shares = [block[s] / block[s].sum() for block in self.cells.research.absolute[m]]
            return by_thirds("evenness", [float(special.entr(one).sum() / np.log(len(one))) for one in shares])

        return {
            "cancellation": grid(
                self.cells, lambda m, s: purity("purity", self.library.total[m, s], self.library.activity[m][s])
            ),
            "strength of response": grid(self.cells, lambda m, s: by_thirds("z", log[m][s] - log[m].mean(axis=0))),
            "evenness of channels": grid(self.cells, evenness),
        }

    @cached_property
    def believed(self) -> list[Belief]:
        """Of every task's 48 unlabelled images, without labels; a clear candidate's votes weigh more at first."""
        found = []
        for s in range(len(self.library.tasks)):
            seen = [cosines(self.features(m, s), self.cells.text(m, s)) for m in range(self.cells.members)]
            votes = np.stack([CLARITY * one / max(float(np.std(one - one.mean(axis=0))), 1e-12) for one in seen])
            prior = prior_weights(special.softmax(3.0 * standardise(self.margins[:, s])), likeness(seen))
            found.append(believe(votes, prior=prior, labels=np.full(votes.shape[1], UNLABELLED)))
        return found

    def features(self, m: int, s: int) -> FloatArray:
        """Embeddings (48, D) of unlabelled images."""
        return self.cells.get("votes", m, s)["features"]

    @cached_property
    def taught(self) -> dict[str, FloatArray]:
        """The evidence scores of rankings with labels, by the belief's classes of the unlabelled images."""

        def score(m: int, s: int) -> dict[str, float]:
            classes, places = np.unique(self.believed[s].classes.argmax(axis=1), return_inverse=True)
            if len(classes) == 1:
                return {}
            text = self.cells.text(m, s)
            seen = Embedded(features=self.features(m, s), texts=text[classes], baseline=text[0], labels=places)
            return {f"taught {name}": value for name, value in evidence_scores(seen).items()}

        return grid(self.cells, score)

    def activity(self, kind: Pass, name: str, n: int) -> Activity:
        """Mean activity (S, B) of every candidate over n of the measured images."""

        def mean(m: int, s: int) -> FloatArray:
            rows = self.cells.get(kind, m, s)[name]
            kept = each_class(self.cells.labels[s], n) if len(rows) > RIVALS else slice(n)
            return np.asarray(rows[kept].mean(axis=0), dtype=np.float64)

        tasks = range(len(self.library.tasks))
        return tuple(np.stack([mean(m, s) for s in tasks]) for m in range(self.cells.members))


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
