"""Cells of a library: one candidate on one task, as figures that later rankings learn from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final, cast

import numpy as np

from vlmsel_auto.cache import Json, Store, digest
from vlmsel_auto.conductance.layer import choose_integrator
from vlmsel_auto.library.records import Build, Cell, SourceCandidate, SourceTask
from vlmsel_auto.measuring.measure import measure
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.ranking.evidence import zeroshot
from vlmsel_auto.ranking.evidence.alignment import COMPARED, nearest
from vlmsel_auto.ranking.evidence.knn import KNN, knn
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.signals import SIGNALS, Embedded, evidence_scores, image_number, label_free_signals
from vlmsel_auto.records import Candidate, FloatArray, IntArray, Task
from vlmsel_auto.tasks import split

CELL_VERSION: Final = 9  # of what the figures mean: a change makes kept cells unused
SOURCE: Final = "vlmsel-auto library build"  # of cells and tuned runs: who made them


@dataclass(frozen=True, kw_only=True, slots=True)
class CellSettings:
    """What determines a cell beside candidate and task."""

    images: int = 32  # unlabelled training images of the conductance profile
    signal_images: int = 160  # unlabelled training images of the label-free signals
    neighbour_images: int = COMPARED  # unlabelled training images that are compared with each other
    points: int = 9  # of the path, on smooth towers; 2 points - 1 where activations have kinks
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)  # labels a class of the evidence
    draws: int = 2  # of the labelled images
    seed: int = 0

    def as_text(self) -> tuple[tuple[str, str], ...]:
        """Sorted (name, value) pairs for the provenance."""
        values = {**asdict(self), "shots": ", ".join(map(str, self.shots)), "cell_version": CELL_VERSION}
        values |= {"scalar": "margin", "baseline": "zeros"}
        return tuple(sorted((name, str(value)) for name, value in values.items()))


def unlabelled_images(task: Task, settings: CellSettings) -> IntArray:
    """The training images of signals and profile: the first draw's support set, shuffled and cut.

    The first ``settings.images`` of them are profiled. They are the same for every candidate.
    """
    support = split.few_shot(task.labels, task.train, shots=max(settings.shots), seed=settings.seed)
    order = np.random.default_rng([settings.seed, 5]).permutation(len(support))
    return np.asarray(support[order][: max(settings.signal_images, settings.images)], dtype=np.int64)


def compared_images(task: Task, settings: CellSettings) -> IntArray:
    """The training images whose neighbours are kept, sorted: a draw in which classes are as frequent as they are."""
    drawn = np.random.default_rng([settings.seed, 6]).permutation(task.train)[: settings.neighbour_images]
    return np.sort(drawn).astype(np.int64)


def labelled_draws(task: Task, settings: CellSettings) -> dict[tuple[int, int], IntArray]:
    """Labelled images by (draw, labels a class): nested in the labels, the same for every candidate."""
    return {
        (w, shots): split.few_shot(task.labels, task.train, shots=shots, seed=settings.seed + w)
        for w in range(settings.draws)
        for shots in settings.shots
    }


def path_points(model: LoadedModel, settings: CellSettings) -> int:
    """Points of the path for this tower."""
    return settings.points if choose_integrator(model.visual) == "spectral" else 2 * settings.points - 1


def cell_key(*, candidate: Candidate, task: Task, settings: CellSettings) -> str:
    """Content address of a cell."""
    names = " ".join(sorted([KNN, *(one.name for one in SIGNALS)]))  # a new score is measured, from kept embeddings
    return digest(
        "library cell", CELL_VERSION, names, fingerprint(candidate), task.digest, cast("Json", settings.as_text())
    )


def measure_cell(*, model: LoadedModel, task: Task, settings: CellSettings, code_version: str, store: Store) -> Cell:
    """Measure one candidate on one source task.

    Embeddings and profiles are kept in ``store``: a new statistic of theirs costs no pass through the model.

    Raises:
        VlmselError: the model cannot be profiled or its weights do not fit.
    """
    began = time.perf_counter()
    candidate = model.candidate
    unlabelled, draws = unlabelled_images(task, settings), labelled_draws(task, settings)
    compared = compared_images(task, settings)
    images = np.unique(np.concatenate([unlabelled, compared, *draws.values(), task.test]))
    points = path_points(model, settings)
    profiled = unlabelled[: settings.images]
    found = measure(model, task, images=images, profiled=profiled, store=store, points=points)
    tested = zeroshot.cosines(found.features[np.searchsorted(images, task.test)], found.text_features)
    made = {**dict(settings.as_text()), "integrator": choose_integrator(model.visual), "points": str(points)}
    cell = cell_of(
        found,
        candidate=candidate,
        task=task,
        images=images,
        unlabelled=unlabelled[: settings.signal_images],
        compared=compared,
        draws=draws,
        zero_shot=zeroshot.zeroshot(tested, task.labels[task.test]),
        build=Build(source=SOURCE, code_version=code_version, settings=tuple(sorted(made.items()))),
    )
    return replace(cell, seconds=time.perf_counter() - began)


def cell_of(
    found: Measurement,
    *,
    candidate: Candidate,
    task: Task,
    images: IntArray,
    unlabelled: IntArray,
    compared: IntArray,
    draws: Mapping[tuple[int, int], IntArray],
    zero_shot: float,
    build: Build,
) -> Cell:
    """The cell of a measurement; tuned accuracies are not in it yet.

    ``images`` (n,) are the task's images behind the rows of ``found.features``. Signals and predictions are taken from
    ``unlabelled`` (u,) of them, neighbours from ``compared``, evidence from ``draws``, by (draw, labels a class).
    """
    order = np.argsort(images)

    def features(chosen: IntArray) -> FloatArray:
        return found.features[order[np.searchsorted(images, chosen, sorter=order)]]

    text = found.text_features
    shown = Embedded(features=features(unlabelled), texts=text, baseline=found.baseline)
    evidence = {
        (w, shots, name): value
        for (w, shots), chosen in draws.items()
        for name, value in _scores(replace(shown, features=features(chosen), labels=task.labels[chosen])).items()
        if np.isfinite(value)
    }
    return Cell(
        candidate=SourceCandidate(
            id=candidate.id,
            arch=candidate.arch,
            tag=candidate.tag,
            family=candidate.family,
            params=candidate.params,
            flops=candidate.flops,
            sha256=found.weights,
            blocks=found.blocks,
        ),
        task=source_task(task),
        build=build,
        finished=time.time(),
        zero_shot=zero_shot,
        total=found.total,
        signals=label_free_signals(shown),
        evidence=evidence,
        activity=found.activity,
        predicted=shown.predicted.astype(np.float64),
        predicted_on=image_number(unlabelled),
        neighbours=nearest(features(compared)).astype(np.int16),
        neighbours_on=image_number(compared),
    )


def _scores(seen: Embedded) -> dict[str, float]:
    """What rankings fuse of labelled images, and k-NN, which the bench compares them with."""
    return evidence_scores(seen) | {KNN: knn(seen.features, seen.classes)}


def source_task(task: Task) -> SourceTask:
    """What a library keeps of a task: its name, domain, classes, digest, number of test images and metric."""
    return SourceTask(
        name=task.name,
        domain=task.domain,
        classes=task.classes,
        digest=task.digest,
        n_test=int(task.test.size),
        metric=task.metric,
    )
