"""Published conductances of real pretrained VLMs: what the DCD authors' code printed of 48 models on 21 data sets.

Shipped: the mean |conductance| of every visual block, one image a data set, F = norm of the unnormalised embedding,
from the logs of github.com/echoas8/DCD (commit 9e872a6). `benchmarks/published_conductance.py` makes the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from vlmsel_auto.cache import Json
from vlmsel_auto.library.file import Arrays, checked, read_document, write_document
from vlmsel_auto.records import FloatArray

FORMAT: Final = "vlmsel_auto published conductance"
VERSION: Final = 1

_UNIT: Final = 1e-9  # figures are kept as whole numbers of it, as they were printed


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedConductance:
    """M models on S data sets."""

    candidate_ids: tuple[str, ...]  # (M,) "arch/tag" as in open_clip
    tasks: tuple[str, ...]  # (S,) named as in `published.datasets`, where it has them
    blocks: tuple[tuple[str, ...], ...]  # of each model its B visual blocks, shallow to deep
    mean: tuple[FloatArray, ...]  # of each model (S, B): mean |conductance| over a block's neurons, > 0, units of F
    source: str


def shipped_path() -> Path:
    """The file that the package ships."""
    return Path(__file__).parents[1] / "data" / "dcd-conductance.safetensors"


def save(published: PublishedConductance, path: Path) -> None:
    """Write published conductances, whole or not at all.

    Raises:
        LibraryError: the file cannot be written.
    """
    document: Json = {
        "candidates": [
            {"id": name, "blocks": list(blocks)}
            for name, blocks in zip(published.candidate_ids, published.blocks, strict=True)
        ],
        "tasks": list(published.tasks),
        "source": published.source,
    }
    arrays = {f"mean/{m}": np.rint(one / _UNIT).astype(np.uint32) for m, one in enumerate(published.mean)}
    write_document(path, document, arrays, kind=FORMAT, version=VERSION)


def load(path: Path | None = None) -> PublishedConductance:
    """Read published conductances; without a path those that the package ships.

    Raises:
        LibraryError: the file is missing, unreadable, cut short, damaged, of another kind or version.
    """
    return read_document(path or shipped_path(), _published, kind=FORMAT, version=VERSION)


def _published(document: dict[str, Any], arrays: Arrays) -> PublishedConductance:
    tasks, blocks = tuple(document["tasks"]), tuple(tuple(one["blocks"]) for one in document["candidates"])
    return PublishedConductance(
        candidate_ids=tuple(one["id"] for one in document["candidates"]),
        tasks=tasks,
        blocks=blocks,
        mean=tuple(_UNIT * checked(arrays, f"mean/{m}", (len(tasks), len(one))) for m, one in enumerate(blocks)),
        source=document["source"],
    )
