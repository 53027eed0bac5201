"""Embeddings of class names in many templates, and of reference pictures: measured once, whoever asks.

Reference pictures are of anything (drawn shapes, patterns, scikit-learn's digits): texts near to these are near to all
images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlmsel_auto.cache import Json, Store, digest
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.records import Candidate

PICTURES: Final = 32
_VERSION: Final = 1  # of the reference pictures
_KINDS: Final = 4  # two of shapes, one of patterns, one of digits
_INK: Final = 16.0  # darkest value of the digits' scans


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceEmbeddings:
    """Of a candidate's texts, and of the pictures that they are compared with."""

    captions: NDArray[np.float32]  # (T, K, D) unit-norm, of K class names in T templates
    elsewhere: NDArray[np.float32]  # (R, D) of the reference pictures, any scale


def reference_embeddings(
    candidate: Candidate,
    prompts: Sequence[str],
    templates: Sequence[str],
    *,
    load: Callable[[], LoadedModel],
    store: Store,
) -> ReferenceEmbeddings:
    """A candidate's embeddings of class names in templates, from ``store`` as far as they are there.

    ``load`` is called only if something is missing.

    Raises:
        TrialUnavailable: the candidate cannot be loaded, or its text tower cannot be used.
    """
    once = cache(load)
    return ReferenceEmbeddings(
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


def reference_pictures(size: int) -> NDArray[np.uint8]:
    """The pictures (32, size, size, 3), RGB; the same for one size on every machine."""
    from sklearn.datasets import load_digits  # takes half a second

    rng, scans = np.random.default_rng(0), load_digits().images
    made = []
    for number in range(PICTURES):
        ground = _colour(rng)
        match number % _KINDS:
            case 2:
                picture = _pattern(size, rng)
            case 3:
                picture = _digit(scans[rng.integers(len(scans))], size, dark=bool(rng.integers(2)))
            case _:
                picture = _shapes(size, ground, rng)
        made.append(np.asarray(picture.convert("RGB"), dtype=np.uint8))
    return np.stack(made)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(256, size=3).tolist()
    return red, green, blue


def _shapes(size: int, ground: tuple[int, int, int], rng: np.random.Generator) -> Image.Image:
    """One to four flat ellipses, rectangles and triangles."""
    picture = Image.new("RGB", (size, size), ground)
    pen = ImageDraw.Draw(picture)
    for _ in range(1 + int(rng.integers(4))):
        x, y = (0.7 * size * rng.random(2)).tolist()
        width, height = (size * (0.15 + 0.45 * rng.random(2))).tolist()
        box, colour = (x, y, x + width, y + height), _colour(rng)
        match int(rng.integers(3)):
            case 0:
                pen.ellipse(box, fill=colour)
            case 1:
                pen.rectangle(box, fill=colour)
            case _:
                pen.polygon([(x, y + height), (x + width / 2, y), (x + width, y + height)], fill=colour)
    return picture


def _pattern(size: int, rng: np.random.Generator) -> Image.Image:
    """Random colours on a grid of 2 to 32 cells a side, as blocks or blurred."""
    cells = int(2 ** rng.integers(1, 6))
    how = Image.Resampling.NEAREST if rng.integers(2) else Image.Resampling.BICUBIC
    return Image.fromarray(rng.integers(256, size=(cells, cells, 3), dtype=np.uint8)).resize((size, size), how)


def _digit(scan: NDArray[np.float64], size: int, *, dark: bool) -> Image.Image:
    grey = np.rint(255.0 * (1.0 - scan / _INK if dark else scan / _INK)).astype(np.uint8)
    return Image.fromarray(grey).resize((size, size), Image.Resampling.BICUBIC)
