"""What a candidate's text tower makes of class names in many templates: measured once, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.cache import Json, Store, digest
from vlmsel_auto.models.fingerprint import fingerprint
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate


def caption_features(
    candidate: Candidate,
    prompts: Sequence[str],
    templates: Sequence[str],
    *,
    load: Callable[[], LoadedModel],
    store: Store,
) -> NDArray[np.float32]:
    """Unit-norm embeddings (T, K, D) of K class names in T templates, from ``store`` as far as they are there.

    ``load`` is called only if a template is missing.

    Raises:
        TrialUnavailable: the candidate cannot be loaded, or its text tower cannot be used.
    """
    key = digest("captions", fingerprint(candidate), list(prompts))
    kept = store.get(key)
    known: dict[str, NDArray[np.float32]] = {}
    if kept is not None:
        arrays, record = kept
        told = cast("list[Json]", record["templates"])
        known = dict(zip(map(str, told), arrays["captions"].astype(np.float32), strict=True))
    missing = [one for one in templates if one not in known]
    if missing:
        made = load().caption_features(prompts, missing).cpu().numpy().transpose(1, 0, 2)
        known |= dict(zip(missing, made, strict=True))
        names: list[Json] = list(known)
        store.put(key, {"captions": np.stack(list(known.values()))}, {"candidate": candidate.id, "templates": names})
    return np.stack([known[one] for one in templates])


def mean_text(captions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class weights (K, D): the mean over templates of captions (T, K, D), of unit length, as of `text_features`."""
    mean = captions.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype=np.float32)
