"""Measures research figures on the images that a library's cells are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.ranking.compared_scores import LABELLED, UNLABELLED, text_scores
from benchmarks.ranking.research import Research, ResearchCandidate
from vlmsel_auto.cache import Store
from vlmsel_auto.conductance.layer import conductance
from vlmsel_auto.conductance.scalars import make_scalar
from vlmsel_auto.library.records import SourceTask
from vlmsel_auto.measuring.cells import CellSettings, labelled_draws, path_points, source_task, unlabelled_images
from vlmsel_auto.measuring.measure import margin_conductance
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.ranking.signals import Embedded
from vlmsel_auto.records import FloatArray, IntArray, Task

_NORM_IMAGES: Final = 8  # of the profile with F = norm of the embedding


@dataclass(frozen=True, kw_only=True, eq=False)
class ResearchCell:
    """One candidate on one task."""

    candidate: ResearchCandidate
    task: SourceTask
    signals: Mapping[str, float]
    evidence: Mapping[tuple[int, int, str], float]  # (draw, shots, score name) -> value
    norm_activity: FloatArray  # (B,) mean over images of sum |C|, F = norm of the embedding
    signature: tuple[FloatArray, ...]  # B arrays (C,): mean signed conductance, F = margin
    absolute: tuple[FloatArray, ...]  # B arrays (C,): mean |conductance|, F = margin
    class_accuracy: FloatArray  # (K,) zero-shot recall of every class
    class_text: FloatArray  # (K, D) unit-norm class weights
    class_image: FloatArray  # (K, D) mean unit-norm embedding of every class's test images
    image_sd: FloatArray  # (D,) standard deviation of the unit-norm embeddings


def measure_research(*, model: LoadedModel, task: Task, settings: CellSettings, store: Store) -> ResearchCell:
    """Measure one candidate on one source task, on the images that `measuring.cells.measure_cell` takes.

    Raises:
        VlmselError: the model cannot be profiled or its weights do not fit.
    """
    candidate, points = model.candidate, path_points(model, settings)
    unlabelled, draws = unlabelled_images(task, settings), labelled_draws(task, settings)
    profiled = unlabelled[: settings.images]

    def seen(images: IntArray) -> Embedded:
        found = embed(candidate, task, images, load=lambda: model, store=store)
        return Embedded(
            features=found.images.astype(np.float64),
            texts=found.text.astype(np.float64),
            baseline=found.baseline.astype(np.float64),
            labels=task.labels[images],
        )

    shown = seen(unlabelled[: settings.signal_images])
    captions = model.caption_features(task.prompts, task.templates).double().cpu().numpy()
    channels = margin_conductance(model, task, profiled, text=shown.texts.astype(np.float32), points=points)
    norm = conductance(
        model.visual,
        model.normalise(task.pixels.read(candidate.view, profiled[:_NORM_IMAGES])),
        scalar=make_scalar("norm"),
        points=points,
    )
    recall, class_image, image_sd = class_statistics(seen(task.test))
    return ResearchCell(
        candidate=ResearchCandidate(
            id=candidate.id,
            sha256=fingerprint(candidate),
            widths=tuple(block.shape[1] for block in channels.signature),
            elements=norm.elements,
            embed_dim=shown.texts.shape[1],
        ),
        task=source_task(task),
        signals={name: score(shown, model.logit_scale) for name, score in UNLABELLED.items()} | text_scores(captions),
        evidence={
            (w, shots, name): score(seen(chosen))
            for (w, shots), chosen in draws.items()
            for name, score in LABELLED.items()
        },
        norm_activity=norm.activity.mean(axis=0),
        signature=tuple(block.mean(axis=0) for block in channels.signature),
        absolute=tuple(block.mean(axis=0) for block in channels.absolute),
        class_accuracy=recall,
        class_text=shown.texts,
        class_image=class_image,
        image_sd=image_sd,
    )


def class_statistics(seen: Embedded) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Zero-shot recall (K,) and mean unit-norm embedding (K, D) of every class, and the deviation (D,) of all.

    NaN for classes without an image.
    """
    unit, k = unit_rows(seen.features), len(seen.texts)
    count = np.bincount(seen.classes, minlength=k).astype(np.float64)
    sums = np.zeros((k, unit.shape[1]))
    np.add.at(sums, seen.classes, unit)
    known = np.where(count > 0, count, np.nan)
    recall = np.bincount(seen.classes, weights=seen.predicted == seen.classes, minlength=k) / known
    return recall, sums / known[:, None], np.std(unit, axis=0)


def assemble(cells: Iterable[ResearchCell]) -> Research:
    """The figures of all cells, one for every candidate and task; candidates and tasks keep their first order."""
    held = {(cell.candidate.id, cell.task.name): cell for cell in cells}
    candidates = tuple({cell.candidate.id: cell.candidate for cell in held.values()}.values())
    tasks = tuple({cell.task.name: cell.task for cell in held.values()}.values())
    grid = [[held[one.id, task.name] for task in tasks] for one in candidates]
    some = next(iter(held.values()))
    keys = sorted({key for cell in held.values() for key in cell.evidence})
    names = tuple(sorted(some.signals))
    shots, scores = tuple(sorted({key[1] for key in keys})), tuple(sorted({key[2] for key in keys}))
    draws = 1 + max(key[0] for key in keys)

    def evidence(cell: ResearchCell) -> list[list[list[float]]]:
        return [[[cell.evidence[w, k, name] for name in scores] for k in shots] for w in range(draws)]

    def blocks(cells: Iterable[tuple[FloatArray, ...]]) -> tuple[FloatArray, ...]:
        return tuple(np.stack(block) for block in zip(*cells, strict=True))

    return Research(
        candidates=candidates,
        tasks=tasks,
        signal_names=names,
        signals=np.array([[[cell.signals[name] for name in names] for cell in row] for row in grid]),
        shots=shots,
        evidence_names=scores,
        evidence_draws=np.array([[evidence(cell) for cell in row] for row in grid]),
        class_accuracy=np.stack([np.concatenate([cell.class_accuracy for cell in row]) for row in grid]),
        norm_activity=tuple(np.stack([cell.norm_activity for cell in row]) for row in grid),
        signature=tuple(blocks(cell.signature for cell in row) for row in grid),
        absolute=tuple(blocks(cell.absolute for cell in row) for row in grid),
        class_text=tuple(np.concatenate([cell.class_text for cell in row]) for row in grid),
        class_image=tuple(np.concatenate([cell.class_image for cell in row]) for row in grid),
        image_sd=tuple(np.stack([cell.image_sd for cell in row]) for row in grid),
    )
