"""What a candidate makes of class names in many templates, and of pictures of anything: measured once, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vlmsel_auto.cache import Json, Store, digest
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.records import Candidate
from vlmsel_auto.tasks.reference_pictures import reference_pictures

_VERSION: Final = 1  # of the reference pictures


@dataclass(frozen=True, kw_only=True, eq=False)
class Wording:
    """Embeddings of texts, and of the pictures that they are compared with."""

    captions: NDArray[np.float32]  # (T, K, D) unit-norm, of K class names in T templates
    elsewhere: NDArray[np.float32]  # (R, D) of the reference pictures, any scale


def wording(
    candidate: Candidate,
    prompts: Sequence[str],
    templates: Sequence[str],
    *,
    load: Callable[[], LoadedModel],
    store: Store,
) -> Wording:
    """What a candidate makes of class names in templates, from ``store`` as far as it is there.

    ``load`` is called only if something is missing.

    Raises:
        TrialUnavailable: the candidate cannot be loaded, or its text tower cannot be used.
    """
    once = cache(load)
    return Wording(
        captions=_captions(candidate, prompts, templates, load=once, store=store),
        elsewhere=_elsewhere(candidate, load=once, store=store),
    )


def _captions(
    candidate: Candidate,
    prompts: Sequence[str],
    templates: Sequence[str],
    *,
    load: Callable[[], LoadedModel],
    store: Store,
) -> NDArray[np.float32]:
    key = digest("captions", fingerprint(candidate), list(prompts))
    kept = store.get(key)
    known: dict[str, NDArray[np.float32]] = {}
    if kept is not None:
        told = cast("list[Json]", kept[1]["templates"])
        known = dict(zip(map(str, told), kept[0]["captions"].astype(np.float32), strict=True))
    missing = [one for one in templates if one not in known]
    if missing:
        made = load().caption_features(prompts, missing).cpu().numpy().transpose(1, 0, 2)
        known |= dict(zip(missing, made, strict=True))
        names: list[Json] = list(known)
        store.put(key, {"captions": np.stack(list(known.values()))}, {"candidate": candidate.id, "templates": names})
    return np.stack([known[one] for one in templates])


def _elsewhere(candidate: Candidate, *, load: Callable[[], LoadedModel], store: Store) -> NDArray[np.float32]:
    key = digest("reference pictures", _VERSION, fingerprint(candidate))
    kept = store.get(key)
    if kept is not None:
        return kept[0]["pictures"].astype(np.float32)
    model = load()
    with torch.inference_mode():
        images = model.normalise(reference_pictures(candidate.view.size))
        made: NDArray[np.float32] = model.embed(images).float().cpu().numpy()
    store.put(key, {"pictures": made}, {"candidate": candidate.id})
    return made


def mean_text(captions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class weights (K, D): the mean over templates of captions (T, K, D), of unit length, as of `text_features`."""
    mean = captions.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype=np.float32)
