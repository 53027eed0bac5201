"""Embeddings of a task's images by one candidate: made once, image by image, whoever asks.

One entry of a store holds what a candidate makes of a task: embeddings of the images that were asked for so far, its
class weights and its logit scale. Asking for more images embeds those that are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from vlmsel_auto.cache import Store, digest
from vlmsel_auto.models.candidates import fingerprint
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate, IntArray, Task

_VERSION: Final = 1
_BATCH: Final = 64  # images that are embedded at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Embeddings:
    """What a candidate makes of some images of a task and of its class names; float32."""

    images: NDArray[np.float32]  # (n, D) unnormalised
    text: NDArray[np.float32]  # (K, D) unit-norm class weights
    baseline: NDArray[np.float32]  # (D,) of the image that is zero after normalisation
    logit_scale: float


def find_embeddings(candidate: Candidate, task: Task, indices: IntArray, *, store: Store) -> Embeddings | None:
    """Kept embeddings of these images, or None where one of them is missing."""
    known = _read(candidate, task, store)
    return None if known is None or _missing(known, indices).size else _pick(known, indices)


def embed(
    candidate: Candidate,
    task: Task,
    indices: IntArray,
    *,
    load: Callable[[], LoadedModel],
    store: Store,
    check: Callable[[], None] = lambda: None,
) -> Embeddings:
    """Embeddings of images of a task, from ``store`` as far as they are there.

    Args:
        candidate: whose.
        task: decoded in the candidate's view.
        indices: (n,) images of the task, in the order wanted.
        load: gives the loaded candidate; called only if something is missing.
        store: where they are kept.
        check: called before every batch of 64 images; what it raises ends the work.

    Raises:
        TrialUnavailable: the candidate cannot be loaded, or its text tower cannot be used.
    """
    known = _read(candidate, task, store)
    missing = np.unique(indices) if known is None else _missing(known, indices)
    if known is not None and not missing.size:
        return _pick(known, indices)
    model = load()
    if known is None:
        known = _without_images(model, task)
    made = embed_images(model, task, missing, check=check)
    known = replace(known, at=np.concatenate([known.at, missing]), images=np.concatenate([known.images, made]))
    store.put(
        _key(candidate, task),
        {"at": known.at, "images": known.images, "text": known.text, "baseline": known.baseline},
        {"candidate": candidate.id, "task": task.name, "logit_scale": known.logit_scale.hex()},
    )
    return _pick(known, indices)


@torch.inference_mode()
def _without_images(model: LoadedModel, task: Task) -> _Entry:
    size = model.candidate.view.size
    text = _array(model.text_features(task.prompts, task.templates))
    baseline = _array(model.embed(torch.zeros(1, 3, size, size, device=model.device)))[0]
    return _Entry(
        at=np.empty(0, dtype=np.int64),
        images=np.empty((0, len(baseline)), dtype=np.float32),
        text=text,
        baseline=baseline,
        logit_scale=model.logit_scale,
    )


@torch.inference_mode()
def embed_images(
    model: LoadedModel, task: Task, indices: IntArray, *, check: Callable[[], None] = lambda: None
) -> NDArray[np.float32]:
    """Unnormalised embeddings (n, D) of images of the task, by the model as it is now; nothing is kept."""
    parts = []
    for start in range(0, len(indices), _BATCH):
        check()
        pixels = task.pixels.read(model.candidate.view, indices[start : start + _BATCH])
        parts.append(_array(model.embed(model.normalise(pixels))))
    return np.concatenate(parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Entry(Embeddings):
    at: IntArray  # (n,) which images


def _key(candidate: Candidate, task: Task) -> str:
    return digest("embeddings", _VERSION, fingerprint(candidate), task.digest)


def _read(candidate: Candidate, task: Task, store: Store) -> _Entry | None:
    kept = store.get(_key(candidate, task))
    if kept is None:
        return None
    arrays, record = kept
    return _Entry(
        at=arrays["at"].astype(np.int64),
        images=arrays["images"].astype(np.float32, copy=False),
        text=arrays["text"].astype(np.float32, copy=False),
        baseline=arrays["baseline"].astype(np.float32, copy=False),
        logit_scale=float.fromhex(str(record["logit_scale"])),
    )


def _missing(known: _Entry, indices: IntArray) -> IntArray:
    return np.setdiff1d(indices, known.at)


def _pick(known: _Entry, indices: IntArray) -> Embeddings:
    order = np.argsort(known.at)
    rows = order[np.searchsorted(known.at, indices, sorter=order)]
    return Embeddings(
        images=known.images[rows], text=known.text, baseline=known.baseline, logit_scale=known.logit_scale
    )


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().float().cpu().numpy())
