"""One candidate measured on the target task: its conductance profile and its embeddings of the few labelled images.

A glance takes the embeddings alone: a tenth of the time, and most of what a ranking with labels learns. What was
measured is kept by content: the same candidate on the same images is looked at once, whoever asks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.cache import Json, Store, digest
from vlmsel_auto.conductance.profiles import profile
from vlmsel_auto.models.candidates import fingerprint
from vlmsel_auto.models.embedding import as_array, embed_baseline, embed_images
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.ranking.records import TargetSignals
from vlmsel_auto.records import Candidate, FloatArray, IntArray, Task

__all__ = ["PROFILE_ERROR", "PROFILE_IMAGES", "SEARCH", "find_measured", "glance", "measure", "profiled_images"]

_VERSION: Final = 2  # of what a measurement means: a change makes kept ones unused
SEARCH: Final = "vlmsel-auto search"  # the source that a library names for what a search measured
PROFILE_IMAGES: Final = 32  # means over fewer are noisier, more cost time on every candidate
PROFILE_ERROR: Final = 0.05  # wanted relative error of a neuron's conductance
_MAX_POINTS: Final = 33


def profiled_images(task: Task) -> IntArray:
    """Support images that are profiled: a seeded draw, the same for every candidate; their labels are not used."""
    order = np.random.default_rng([0, 5]).permutation(len(task.support))
    return np.asarray(task.support[order][:PROFILE_IMAGES], dtype=np.int64)


def _key(candidate: Candidate, task: Task) -> str:
    return digest("target", _VERSION, fingerprint(candidate), task.digest, PROFILE_IMAGES, PROFILE_ERROR, _MAX_POINTS)


def _glance_key(candidate: Candidate, task: Task) -> str:
    return digest("glance", _VERSION, fingerprint(candidate), task.digest)


def find_measured(candidate: Candidate, task: Task, *, store: Store) -> TargetSignals | None:
    """What `measure`, or else `glance`, kept for this candidate and task; a glance has no ``blocks``. Else None."""
    entry = store.get(_key(candidate, task)) or store.get(_glance_key(candidate, task))
    if entry is None:
        return None
    arrays, record = entry
    names = tuple(str(name) for name in cast("list[Json]", record.get("blocks", [])))
    blocks = range(len(names))

    def read(name: str) -> FloatArray:
        return arrays[name].astype(np.float64, copy=False)

    seen = TargetSignals(
        candidate=candidate.id,
        features=read("features"),
        text_features=read("text_features"),
        baseline=read("baseline"),
        logit_scale=float.fromhex(str(record["logit_scale"])),
        params=candidate.params,
        flops=candidate.flops,
    )
    if not names:
        return seen
    return replace(
        seen,
        total=read("total"),
        activity=read("activity"),
        blocks=names,
        signature=tuple(read(f"signature.{b}") for b in blocks),
        absolute=tuple(read(f"absolute.{b}") for b in blocks),
    )


def glance(model: LoadedModel, task: Task, *, store: Store) -> TargetSignals:
    """Embed the target's support images and class names by a loaded candidate and keep the result in ``store``.

    Raises:
        TrialUnavailable: the candidate's text tower cannot be used.
    """
    candidate = model.candidate
    kept = find_measured(candidate, task, store=store)
    if kept is not None:
        return kept
    signals = TargetSignals(
        candidate=candidate.id,
        features=embed_images(model, task, task.support),
        text_features=as_array(model.text_features(task.prompts, task.templates)),
        baseline=embed_baseline(model),
        logit_scale=model.logit_scale,
        params=candidate.params,
        flops=candidate.flops,
    )
    store.put(
        _glance_key(candidate, task),
        _embeddings(signals),
        {"candidate": candidate.id, "logit_scale": signals.logit_scale.hex()},
    )
    return signals


def _embeddings(signals: TargetSignals) -> dict[str, NDArray[np.generic]]:
    return {
        "features": signals.features,
        "text_features": signals.text_features,
        "baseline": signals.baseline,
    }


def measure(model: LoadedModel, task: Task, *, store: Store) -> TargetSignals:
    """Measure a loaded candidate on the target's support images and keep the result in ``store``.

    Raises:
        ConductanceError: the tower has no conductance.
        TrialUnavailable: the candidate's text tower cannot be used.
    """
    candidate = model.candidate
    texts = model.text_features(task.prompts, task.templates)
    made = profile(
        model,
        task.pixels.read(candidate.view, profiled_images(task)),
        text_features=texts,
        candidate=candidate.id,
        task=task.name,
        error=PROFILE_ERROR,
        max_points=_MAX_POINTS,
    )
    signals = replace(
        glance(model, task, store=store),
        total=made.total,
        activity=made.activity.mean(axis=0),
        blocks=made.blocks,
        signature=tuple(block.mean(axis=0) for block in made.signature),
        absolute=tuple(block.mean(axis=0) for block in made.absolute),
    )
    arrays = {**_embeddings(signals), "total": signals.total, "activity": signals.activity}
    for b, (signed, absolute) in enumerate(zip(signals.signature, signals.absolute, strict=True)):
        arrays[f"signature.{b}"] = signed
        arrays[f"absolute.{b}"] = absolute
    store.put(
        _key(candidate, task),
        arrays,
        {"candidate": candidate.id, "blocks": list(made.blocks), "logit_scale": signals.logit_scale.hex()},
    )
    return signals
