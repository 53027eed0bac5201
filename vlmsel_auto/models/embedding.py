"""Embeddings of a task's images by one candidate: made once, image by image, whoever asks.

One entry of a store holds what a candidate makes of a task: embeddings of the images that were asked for so far, its
class weights and its logit scale. Asking for more images embeds those that are missing. All draws from heaps without
labels that have the same class texts share an entry.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from vlmsel_auto.cache import Store, digest
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.models.facts import EMBED_BATCH
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.models.precision import Encoder, quick_encoder
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.models.threads import measured_threads
from vlmsel_auto.records import Candidate, IntArray, Task

_MOST: Final = 20_000  # images of an entry that draws share: those that were wanted last
_VERSION: Final = 3  # of what an embedding means, decoding and precision included: a change makes kept ones unused


@dataclass(frozen=True, kw_only=True, eq=False)
class Embeddings:
    """What a candidate makes of some images of a task and of its class names; float32."""

    at: IntArray  # (n,) which images: indices into the task, or in a store `Task.image_ids`
    images: NDArray[np.float32]  # (n, D) unnormalised
    text: NDArray[np.float32]  # (K, D) unit-norm class weights; (0, D): the candidate has no text tower
    baseline: NDArray[np.float32]  # (D,) of the image that is zero after normalisation
    logit_scale: float
    seconds: float = np.nan  # an image through the visual tower in float32, the fastest that was timed


def find_embeddings(candidate: Candidate, task: Task, indices: IntArray, *, store: Store) -> Embeddings | None:
    """Kept embeddings of these images, or None where one of them is missing."""
    known = _read(candidate, task, store)
    return None if known is None or len(_missing(known, task, indices)) else _pick(known, task, indices)


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

    ``indices`` (n,) are in the order wanted. ``load`` is called only if something is missing, ``check`` before every
    batch of 64 images: what it raises ends the work.

    Raises:
        TrialUnavailable: the candidate cannot be loaded, its text tower cannot be used, or what it makes is not finite.
    """
    known = _read(candidate, task, store)
    if known is not None and not len(_missing(known, task, indices)):
        return _pick(known, task, indices)
    model = load()
    known = known or _without_images(model, task)
    missing = _missing(known, task, indices)
    made, seconds = embed_images(model, task, missing, check=check)
    known = replace(
        known,
        at=np.concatenate([known.at, task.image_ids[missing]]),
        images=np.concatenate([known.images, made]),
        seconds=float(np.fmin(known.seconds, seconds)),
    )
    if task.draw is not None:
        known = _wanted_last(known, task.image_ids[indices])
    _write(candidate, task, known, store)
    return _pick(known, task, indices)


def reword(candidate: Candidate, task: Task, spoken: Task, *, text: NDArray[np.float32], store: Store) -> None:
    """Keep what is known of a candidate on a task for the same task ``spoken`` in other templates, too.

    ``text`` (K, D) are its class weights in these. Where nothing is known of the task nothing is kept.
    """
    known = _read(candidate, task, store)
    if known is not None:
        _write(candidate, spoken, replace(known, text=text), store)


@torch.inference_mode()
def _without_images(model: LoadedModel, task: Task) -> Embeddings:
    size = model.candidate.view.size
    baseline = _finite(model, model.embed(torch.zeros(1, 3, size, size, device=model.device)))[0]
    text = np.empty((0, len(baseline)), dtype=np.float32)
    if model.candidate.has_text:
        text = _finite(model, model.text_features(task.prompts, task.templates))
    return Embeddings(
        at=np.empty(0, dtype=np.int64),
        images=np.empty((0, len(baseline)), dtype=np.float32),
        text=text,
        baseline=baseline,
        logit_scale=model.logit_scale,
    )


@torch.inference_mode()
def embed_images(
    model: LoadedModel, task: Task, indices: IntArray, *, check: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.float32], float]:
    """Unnormalised embeddings (n, D) by the model as it is now, and the seconds an image takes in float32.

    Nothing is kept. The fastest batch counts: others may have waited for the machine.
    """
    task.pixels.prepare(model.candidate.view, indices, check=check)
    encoder: Encoder | None = None
    parts, fastest = [], np.inf
    with measured_threads(model.device) as threads:
        for start in range(0, len(indices), EMBED_BATCH):
            check()
            images = model.normalise(task.pixels.read(model.candidate.view, indices[start : start + EMBED_BATCH]))
            encoder = encoder or quick_encoder(model, images)
            threads.start()
            began = time.perf_counter()
            parts.append(_finite(model, encoder.encode(images)))
            fastest = min(fastest, (time.perf_counter() - began) / len(images))
            threads.done(len(images))
    timed = None if encoder is None else encoder.seconds
    return np.concatenate(parts), fastest if timed is None else timed


def _key(candidate: Candidate, task: Task) -> str:
    return digest("embeddings", _VERSION, fingerprint(candidate), task.measured_under)


def _read(candidate: Candidate, task: Task, store: Store) -> Embeddings | None:
    kept = store.get(_key(candidate, task))
    if kept is None:
        return None
    arrays, record = kept
    return Embeddings(
        at=arrays["at"].astype(np.int64),
        **{name: arrays[name].astype(np.float32, copy=False) for name in ("images", "text", "baseline")},
        logit_scale=float.fromhex(str(record["logit_scale"])),
        seconds=float.fromhex(str(record.get("seconds", "nan"))),
    )


def _write(candidate: Candidate, task: Task, known: Embeddings, store: Store) -> None:
    store.put(
        _key(candidate, task),
        {"at": known.at, "images": known.images, "text": known.text, "baseline": known.baseline},
        {
            "candidate": candidate.id,
            "task": task.name,
            "logit_scale": known.logit_scale.hex(),
            "seconds": known.seconds.hex(),
        },
    )


def _missing(known: Embeddings, task: Task, indices: IntArray) -> IntArray:
    """Those of some images of the task, each once, that are not known."""
    return np.unique(indices[~np.isin(task.image_ids[indices], known.at)])


def _wanted_last(known: Embeddings, ids: IntArray) -> Embeddings:
    """As many as an entry may hold, the images that are wanted now at its end."""
    order = np.argsort(np.isin(known.at, ids), kind="stable")[-max(_MOST, len(ids)) :]
    return replace(known, at=known.at[order], images=known.images[order])


def _pick(known: Embeddings, task: Task, indices: IntArray) -> Embeddings:
    order = np.argsort(known.at)
    rows = order[np.searchsorted(known.at, task.image_ids[indices], sorter=order)]
    return replace(known, at=indices, images=known.images[rows])


def _finite(model: LoadedModel, tensor: torch.Tensor) -> NDArray[np.float32]:
    """The values, none of which may spoil what is computed of all candidates together."""
    values = np.asarray(tensor.detach().float().cpu().numpy())
    if not np.isfinite(values).all():
        raise TrialUnavailable(
            f"The embeddings of {model.candidate.id!r} are not finite: its files are damaged or its preprocessing is "
            f"wrong, leave it out, but got NaN or infinite values"
        )
    return values
