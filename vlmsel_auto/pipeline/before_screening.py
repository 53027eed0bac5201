"""What is known of candidates before anyone is screened: figures of other tasks, and what a screening will cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.library import published
from vlmsel_auto.library.published import expected_figures
from vlmsel_auto.library.records import Library
from vlmsel_auto.models.download import is_cached
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.models.machine import Machine, screening_embedding_seconds
from vlmsel_auto.planning.screening_prior import ScreeningPrior, learn_prior, nothing_published
from vlmsel_auto.records import Candidate, FloatArray

_SPEED: Final = 5e10  # operations a second of a machine that nobody measured


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """Of M candidates, in their order."""

    prior: ScreeningPrior  # accuracies on other tasks, as possible ones on this
    published: NDArray[np.bool_]  # (M,) whether there are figures of it
    embedding: FloatArray  # (M,) seconds in which it should embed the images; NaN: unknown
    downloads: FloatArray  # (M,) bytes that a screening would download; NaN: unknown


def known_before(
    candidates: Sequence[Candidate],
    *,
    library: Library,
    tuned: bool,
    images: int,
    machine: Machine | None,
    downloads: Mapping[str, int],
) -> Known:
    """Published zero-shot accuracies, and the library's side by side; who has none stands where it is expected.

    A task of the library that is a published data set only fills what is not published there.

    Args:
        candidates: M of them.
        library: has accuracies.
        tuned: take those after tuning, where the library knows them.
        images: that a screening embeds.
        machine: this one, as measured; None: an ordinary one.
        downloads: bytes still to come of some candidates, as the hub told; of the others they are estimated.
    """
    rows = {name: m for m, name in enumerate(library.candidate_ids)}
    truth = np.where(np.isfinite(library.tuned) & tuned, library.tuned, library.zero_shot)
    own = np.full((len(candidates), len(library.tasks)), np.nan)
    for m, one in enumerate(candidates):
        if one.id in rows:
            own[m] = truth[rows[one.id]]
    figures, columns = published.zero_shot([one.id for one in candidates]), published.datasets()
    table = figures.copy()
    shared = {s: columns.index(name) for s, name in enumerate(library.task_names) if name in columns}
    for s, column in shared.items():
        table[:, column] = np.where(np.isfinite(table[:, column]), table[:, column], own[:, s])
    table = np.concatenate([table, np.delete(own, list(shared), axis=1)], axis=1)
    unknown = ~np.isfinite(table).any(axis=1)
    table[unknown, : len(columns)] = expected_figures([candidates[m] for m in np.flatnonzero(unknown).tolist()])
    usable = (np.isfinite(table).sum(axis=0) > 1).sum() > 1
    return Known(
        prior=learn_prior(table) if usable else nothing_published(len(candidates)),
        published=np.asarray(np.isfinite(figures).any(axis=1)),
        embedding=np.array([_embedding_seconds(one, images, machine) for one in candidates]),
        downloads=np.array([_download_bytes(one, downloads.get(one.id)) for one in candidates]),
    )


def _embedding_seconds(candidate: Candidate, images: int, machine: Machine | None) -> float:
    if machine is None:
        return math.nan if candidate.flops is None else candidate.flops * images / _SPEED
    return screening_embedding_seconds(facts_of(candidate), images=images, machine=machine) or math.nan


def _download_bytes(candidate: Candidate, told: int | None) -> float:
    needed = facts_of(candidate, download_bytes=told).download_bytes
    return 0.0 if is_cached(candidate) else math.nan if needed is None else float(needed)
