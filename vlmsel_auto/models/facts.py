"""What is known of a candidate before it is loaded: sizes, costs, licence, training data. No torch, no network.

Parameters, operations, bytes written and peak memory of open_clip's towers were counted by
``tools/model_cards.py``; licences and training data are what the publishers state, with the source beside
each row of ``data/openclip_publishers.json``; memory is an estimate from the parameters, and so are bytes to download
until the hub was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vlmsel_auto.models.hubfiles import lacking
from vlmsel_auto.models.sources.table import source_of
from vlmsel_auto.records import Candidate

EMBED_BATCH: Final = 64  # images that are embedded at once

_FLOAT = 4  # bytes of a parameter, on the hub and in memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """A candidate as it can be judged without its weights; None: not known."""

    candidate: str
    params: int | None  # of both towers
    flops: float | None  # operations (2 x multiply-adds) of one image through the visual tower
    written: int | None  # bytes of the results of all those operations, float32
    download_bytes: int | None  # as the hub told, else an estimate, as if every parameter had 4 bytes; 0: on this disk
    memory_bytes: int | None  # estimate: to load in float32 and embed 64 images at once
    image_size: int  # side of the square input, pixels
    repository: str  # on the hub, "ORG/NAME"; empty: not from there
    licence: str  # SPDX identifier where there is one, else the publisher's name for it, or "unknown"
    training_data: str  # or "unknown"
    training_pairs: float | None  # pairs of image and text in it, as stated
    lacks: tuple[str, ...]  # packages that it needs and that are not installed
    mean_accuracy: float | None = None  # published zero-shot accuracy, mean over data sets, in [0, 1]
    imagenet: float | None = None  # published zero-shot accuracy on ImageNet, in [0, 1]


def facts_of(
    candidate: Candidate,
    *,
    download_bytes: int | None = None,
    mean_accuracy: float | None = None,
    imagenet: float | None = None,
) -> Facts:
    """Look up what is known of a candidate.

    Args:
        candidate: from `vlmsel_auto.models.candidates`.
        download_bytes: as the hub told (`vlmsel_auto.models.download.sizes`); None: they are estimated.
        mean_accuracy: published mean zero-shot accuracy, from `vlmsel_auto.library.published`; None: not known.
        imagenet: the same on ImageNet.

    Raises:
        CandidateError: a folder cannot be used any more.
    """
    stated = source_of(candidate).facts(candidate)
    params = stated.params if candidate.params is None else candidate.params
    estimate = 0 if candidate.path else None if params is None else _FLOAT * params
    return Facts(
        candidate=candidate.id,
        params=params,
        flops=candidate.flops,
        written=stated.written,
        download_bytes=estimate if download_bytes is None else download_bytes,
        memory_bytes=None if params is None else _memory(params, stated.peak),
        image_size=candidate.view.size,
        repository=stated.repository,
        licence=stated.licence,
        training_data=stated.training_data,
        training_pairs=stated.training_pairs,
        lacks=lacking(stated.text_cfg),
        mean_accuracy=mean_accuracy,
        imagenet=imagenet,
    )


def known_sum(values: Sequence[int | None]) -> int | None:
    """The sum of figures of several models; None where one of them is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _memory(params: int, peak: int) -> int:
    """Bytes while loading, when file and model are both there, or while embedding, whichever is more."""
    weights = _FLOAT * params
    return weights + max(weights, EMBED_BATCH * peak)
