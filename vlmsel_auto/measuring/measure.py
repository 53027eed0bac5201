"""Measures a candidate on a task: embeddings of its images and, where wanted, conductance of every visual block.

Embeddings alone take a tenth of the time and are most of what a ranking with labels learns from. Everything is kept by
content: the same candidate on the same images is measured once, whoever asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vlmsel_auto.cache import Json, Store, digest
from vlmsel_auto.conductance.layer import Conductance, conductance
from vlmsel_auto.conductance.scalars import make_scalar
from vlmsel_auto.models.embedding import Embeddings, embed, find_embeddings
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.records import Candidate, IntArray, Task

PROFILE_IMAGES: Final = 32  # means over fewer are noisier, more cost time on every candidate
_ERROR: Final = 0.05  # wanted relative error of a neuron's conductance
_MAX_POINTS: Final = 33
_VERSION: Final = 4  # of what a measurement means: a change makes kept ones unused


def profiled_images(task: Task) -> IntArray:
    """Images that are profiled: a seeded draw of those that screenings embed, the same for all; labels are not used.

    Of an unlabelled pool those that were drawn first, which other draws have, too.
    """
    if task.draw is not None:
        return task.draw.order[:PROFILE_IMAGES]
    order = np.random.default_rng([0, 5]).permutation(len(task.screened))
    return np.asarray(task.screened[order][:PROFILE_IMAGES], dtype=np.int64)


def find_measurement(candidate: Candidate, task: Task, *, store: Store) -> Measurement | None:
    """What `measure_target`, or else `embed_target`, kept: the latter has no ``blocks``. Else None."""
    seen = find_embeddings(candidate, task, task.screened, store=store)
    further = [find_embeddings(candidate, each, images, store=store) for each, images in _further(task)]
    if seen is None or None in further:
        return None
    found = _with_others(_of_embeddings(candidate, seen), [each for each in further if each is not None])
    kept = store.get(_profile_key(candidate, task, profiled_images(task), None))
    return found if kept is None else _with_profile(found, *kept)


def embed_target(model: LoadedModel, task: Task, *, store: Store) -> Measurement:
    """Embed the images of the target that screenings take, and its class names.

    Raises:
        TrialUnavailable: the candidate's text tower cannot be used.
    """
    return _screen(model, task, profiled=None, store=store)


def measure_target(model: LoadedModel, task: Task, *, store: Store) -> Measurement:
    """Embed what `embed_target` does, and take the conductance of 32 of the images.

    Raises:
        ConductanceError: the tower has no conductance.
        TrialUnavailable: the candidate's text tower cannot be used.
    """
    return _screen(model, task, profiled=profiled_images(task), store=store)


def _screen(model: LoadedModel, task: Task, *, profiled: IntArray | None, store: Store) -> Measurement:
    # these first: what is told of the seconds an image takes is then what is kept, the least of both
    further = [embed(model.candidate, each, images, load=lambda: model, store=store) for each, images in _further(task)]
    found = measure(model, task, images=task.screened, profiled=profiled, store=store)
    return _with_others(found, further)


def _further(task: Task) -> list[tuple[Task, IntArray]]:
    """Images that screenings embed beside those that have labels."""
    parts = [(task, task.others)] if len(task.others) else []
    return parts if task.beside is None else [*parts, (task.beside, task.beside.screened)]


def _with_others(found: Measurement, further: Sequence[Embeddings]) -> Measurement:
    if not further:
        return found
    return replace(found, others=np.concatenate([each.images for each in further]).astype(np.float64))


def measure(
    model: LoadedModel,
    task: Task,
    *,
    images: IntArray,
    profiled: IntArray | None,
    store: Store,
    points: int | None = None,
) -> Measurement:
    """Measure a loaded candidate on images of a task.

    ``images`` (n,) are embedded: the rows of ``features``. ``profiled`` are those whose conductance is taken, if any,
    with this number of ``points`` of the path; None: as many as an error of 5 % needs, at most 33.

    Raises:
        ConductanceError: the tower has no conductance.
        TrialUnavailable: the candidate's text tower cannot be used.
    """
    candidate = model.candidate
    seen = embed(candidate, task, images, load=lambda: model, store=store)
    found = _of_embeddings(candidate, seen)
    if profiled is None:
        return found
    key = _profile_key(candidate, task, profiled, points)
    kept = store.get(key)
    if kept is None:
        made = margin_conductance(model, task, profiled, text=seen.text, points=points)
        total = float(made.total.mean())
        record: dict[str, Json] = {"candidate": candidate.id, "blocks": list(made.blocks), "total": total.hex()}
        kept = {"activity": made.activity.mean(axis=0)}, record
        store.put(key, *kept)
    return _with_profile(found, *kept)


def margin_conductance(
    model: LoadedModel, task: Task, images: IntArray, *, text: NDArray[np.float32], points: int | None = None
) -> Conductance:
    """Conductance of images of a task, F = margin, or norm without class weights; start of the paths at zero.

    Raises:
        ConductanceError: the tower has no conductance.
    """
    return conductance(
        model.visual,
        model.normalise(task.pixels.read(model.candidate.view, images)),
        scalar=make_scalar(
            "margin", text_features=torch.tensor(text, device=model.device), logit_scale=model.logit_scale
        )
        if len(text)
        else make_scalar("norm"),
        error=_ERROR,
        points=points,
        max_points=_MAX_POINTS,
    )


def _profile_key(candidate: Candidate, task: Task, images: IntArray, points: int | None) -> str:
    effort: Json = [_ERROR, _MAX_POINTS] if points is None else points
    ids: list[Json] = [int(one) for one in task.image_ids[images]]
    return digest("profile", _VERSION, fingerprint(candidate), task.measured_under, ids, effort)


def _of_embeddings(candidate: Candidate, seen: Embeddings) -> Measurement:
    return Measurement(
        candidate=candidate.id,
        features=seen.images.astype(np.float64),
        text_features=seen.text.astype(np.float64),
        baseline=seen.baseline.astype(np.float64),
        seconds=seen.seconds,
        weights=fingerprint(candidate),
    )


def _with_profile(
    found: Measurement, arrays: Mapping[str, NDArray[np.generic]], record: Mapping[str, Json]
) -> Measurement:
    return replace(
        found,
        total=float.fromhex(str(record["total"])),
        activity=arrays["activity"].astype(np.float64),
        blocks=tuple(str(name) for name in cast("list[Json]", record["blocks"])),
    )
