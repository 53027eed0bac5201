"""One cell of a library: what one candidate does on one task, measured on its images."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Final, cast

import numpy as np

from vlmsel_auto.cache import Json, Store, digest
from vlmsel_auto.conductance.conductance import choose_integrator
from vlmsel_auto.conductance.profiles import profile
from vlmsel_auto.library.library import source_candidate, source_task
from vlmsel_auto.library.records import Build, Cell
from vlmsel_auto.models import candidates as catalogue
from vlmsel_auto.models.embedding import as_array, embed_baseline, embed_images
from vlmsel_auto.models.loadedmodel import LoadedModel, class_weights
from vlmsel_auto.ranking.evidence.text import text_scores
from vlmsel_auto.ranking.signals import (
    class_statistics,
    evidence_scores,
    image_number,
    label_free_signals,
    predictions,
)
from vlmsel_auto.records import Candidate, FloatArray, IntArray, Task
from vlmsel_auto.tasks import split

__all__ = ["CELL_VERSION", "CellSettings", "cell_key", "make_cell", "pool"]

CELL_VERSION: Final = 6  # of what the figures mean: a change makes kept cells unused


@dataclass(frozen=True, kw_only=True, slots=True)
class CellSettings:
    """What determines a cell beside candidate and task."""

    images: int = 32  # unlabelled training images of the conductance profile
    norm_images: int = 8  # of these, for the profile with F = norm of the embedding; 0: none
    signal_images: int = 160  # unlabelled training images of the label-free signals
    points: int = 9  # of the path, on smooth towers; 2 points - 1 where activations have kinks
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)  # labels a class of the evidence
    draws: int = 2  # of the labelled images
    seed: int = 0

    def as_text(self) -> tuple[tuple[str, str], ...]:
        """Sorted (name, value) pairs for the provenance."""
        values = {
            name: ", ".join(map(str, one)) if isinstance(one, tuple) else str(one) for name, one in asdict(self).items()
        }
        return tuple(
            sorted({**values, "scalar": "margin", "baseline": "zeros", "cell_version": str(CELL_VERSION)}.items())
        )


def pool(task: Task, settings: CellSettings) -> IntArray:
    """The unlabelled training images of signals and profile: the first draw's support set, shuffled and cut.

    The first ``settings.images`` of them are profiled. They are the same for every candidate.
    """
    support = split.few_shot(task.labels, task.train, shots=max(settings.shots), seed=settings.seed)
    order = np.random.default_rng([settings.seed, 5]).permutation(len(support))
    return np.asarray(support[order][: max(settings.signal_images, settings.images)], dtype=np.int64)


def cell_key(*, candidate: Candidate, task: Task, settings: CellSettings) -> str:
    """Content address of a cell."""
    return digest(
        "library cell", CELL_VERSION, catalogue.fingerprint(candidate), task.digest, cast("Json", settings.as_text())
    )


def make_cell(*, model: LoadedModel, task: Task, settings: CellSettings, code_version: str, store: Store) -> Cell:
    """Measure one candidate on one task.

    Embeddings and profiles are kept in ``store``: a new statistic of theirs costs no pass through the model.

    Raises:
        VlmselError: the model cannot be profiled or its weights do not fit.
    """
    began = time.perf_counter()
    candidate = model.candidate
    captions = model.caption_features(task.prompts, task.templates)
    texts = class_weights(captions)
    class_text = as_array(texts)
    images = pool(task, settings)
    pixels = task.pixels.read(candidate.view, images[: settings.images])
    smooth = choose_integrator(model.visual) == "spectral"
    points = settings.points if smooth else 2 * settings.points - 1
    made = profile(
        model,
        pixels,
        text_features=texts,
        candidate=candidate.id,
        task=task.name,
        points=points,
        store=store,
    )
    norm = np.empty(0)
    if settings.norm_images:
        norm = profile(
            model,
            pixels[: settings.norm_images],
            text_features=None,
            candidate=candidate.id,
            task=task.name,
            points=points,
            store=store,
        ).activity.mean(axis=0)
    accuracy, recall, class_image, image_sd = class_statistics(
        _embed(model, task, store, task.test), task.labels[task.test], class_text
    )
    features = _training_features(model, task, settings=settings, store=store)
    shown = images[: settings.signal_images]
    signals = _signals(model, features[shown], texts=class_text)
    signals |= text_scores(as_array(captions), seed=settings.seed)
    evidence = _evidence(task, features, settings=settings, texts=class_text)
    return Cell(
        candidate=source_candidate(
            candidate,
            sha256=catalogue.fingerprint(candidate),
            blocks=made.blocks,
            widths=tuple(one.shape[1] for one in made.signature),
            embed_dim=class_text.shape[1],
        ),
        task=source_task(task),
        build=Build(
            source="vlmsel-auto library build",
            code_version=code_version,
            settings=tuple(
                sorted({**dict(settings.as_text()), "integrator": made.integrator, "points": str(made.points)}.items())
            ),
        ),
        finished=time.time(),
        zero_shot=accuracy,
        total=float(made.total.mean()),
        seconds=time.perf_counter() - began,
        signals=signals,
        evidence=evidence,
        activity=made.activity.mean(axis=0),
        norm_activity=norm,
        signature=tuple(one.mean(axis=0) for one in made.signature),
        absolute=tuple(one.mean(axis=0) for one in made.absolute),
        class_accuracy=recall,
        class_text=class_text,
        class_image=class_image,
        image_sd=image_sd,
        predicted=predictions(features[shown], class_text),
        predicted_on=image_number(shown),
    )


def _draws(task: Task, settings: CellSettings, *, shots: int) -> list[IntArray]:
    """Labelled images of every draw: nested in the number of shots, and the same for every candidate."""
    return [split.few_shot(task.labels, task.train, shots=shots, seed=settings.seed + w) for w in range(settings.draws)]


def _training_features(model: LoadedModel, task: Task, *, settings: CellSettings, store: Store) -> FloatArray:
    """Embeddings of all images that signals and evidence look at, in rows by image index; the others are NaN."""
    wanted = np.unique(np.concatenate([pool(task, settings), *_draws(task, settings, shots=max(settings.shots))]))
    found = _embed(model, task, store, wanted)
    rows = np.full((len(task.paths), found.shape[1]), np.nan)
    rows[wanted] = found
    return rows


def _signals(model: LoadedModel, chosen: FloatArray, *, texts: FloatArray) -> dict[str, float]:
    return label_free_signals(chosen, texts, baseline=embed_baseline(model), logit_scale=model.logit_scale)


def _evidence(
    task: Task, features: FloatArray, *, settings: CellSettings, texts: FloatArray
) -> dict[tuple[int, int, str], float]:
    """Scores of every draw at every number of shots."""
    found: dict[tuple[int, int, str], float] = {}
    for shots in settings.shots:
        for w, chosen in enumerate(_draws(task, settings, shots=shots)):
            # also the slow ones: rankings use none of them, but the bench compares with them
            scores = evidence_scores(features[chosen], task.labels[chosen], texts, seed=settings.seed)
            found.update({(w, shots, name): value for name, value in scores.items() if np.isfinite(value)})
    return found


def _embed(model: LoadedModel, task: Task, store: Store, indices: IntArray) -> FloatArray:
    """Unnormalised embeddings (n, D) of images of the task, at float32 precision."""
    key = digest("embeddings", catalogue.fingerprint(model.candidate), task.digest, [int(one) for one in indices])
    kept = store.get(key)
    if kept is not None:
        return kept[0]["features"].astype(np.float64)
    found = embed_images(model, task, indices)
    store.put(key, {"features": found.astype(np.float32)}, {"candidate": model.candidate.id, "task": task.name})
    return found
