"""Records of one cell of a library: a candidate on a task, and who they are. Missing values are NaN.

Shapes: B visual blocks, C_b channels of block b, D embedding width, K classes. Accuracies lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vlmsel_auto.records import FloatArray

__all__ = ["Build", "Cell", "CellFailure", "SourceCandidate", "SourceTask"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceCandidate:
    """A candidate as the library knows it."""

    id: str
    arch: str
    tag: str
    family: str = "unknown"
    params: int | None = None
    flops: float | None = None  # of one image through the visual tower
    sha256: str = ""  # of the weights; "": unknown (published figures)
    blocks: tuple[str, ...] = ()  # (B,) visual blocks, shallow to deep; (): no profile
    widths: tuple[int, ...] = ()  # (B,) channels C_b
    embed_dim: int = 0  # D; 0: no embeddings kept


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceTask:
    """A source task as the library knows it: no image is kept."""

    name: str
    domain: str
    classes: tuple[str, ...]
    digest: str  # sha256 of the task's content, see Task.digest
    n_test: int  # images behind the accuracies; 0: unknown

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """How cells were made: the provenance that many cells share."""

    source: str  # "vlmsel-auto library build", "vlmsel-auto search", or the citation of a published table
    code_version: str
    settings: tuple[tuple[str, str], ...] = ()  # sorted (name, value): scalar, images, baseline, error, seed, ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CellFailure:
    """Why one cell is missing."""

    candidate: str
    task: str
    reason: str


def _empty(*shape: int) -> FloatArray:
    return np.full(shape, np.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One candidate on one task. Everything but the identity may be missing (NaN, or an empty array or mapping)."""

    candidate: SourceCandidate
    task: SourceTask
    build: Build
    finished: float  # seconds since 1970-01-01 UTC
    zero_shot: float = np.nan  # accuracy on the test split
    probed: float = np.nan  # accuracy of a linear probe on the test split
    total: float = np.nan  # mean over images of F(x) - F(x0), F = margin
    seconds: float = np.nan  # wall time of the cell
    tuned: Mapping[str, float] = field(default_factory=dict)  # run name -> accuracy on the test split
    signals: Mapping[str, float] = field(default_factory=dict)  # label-free statistics by name
    evidence: Mapping[tuple[int, int, str], float] = field(default_factory=dict)  # (draw, shots, score name) -> value
    activity: FloatArray = field(default_factory=lambda: _empty(0))  # (B,) mean of sum |C|, F = margin
    norm_activity: FloatArray = field(default_factory=lambda: _empty(0))  # (B,) the same, F = norm of the embedding
    signature: tuple[FloatArray, ...] = ()  # B arrays (C_b,): mean signed conductance
    absolute: tuple[FloatArray, ...] = ()  # B arrays (C_b,): mean |conductance|
    class_accuracy: FloatArray = field(default_factory=lambda: _empty(0))  # (K,) zero-shot recall of every class
    class_text: FloatArray = field(default_factory=lambda: _empty(0, 0))  # (K, D) unit-norm class weights
    class_image: FloatArray = field(default_factory=lambda: _empty(0, 0))  # (K, D) mean unit-norm image embedding
    image_sd: FloatArray = field(default_factory=lambda: _empty(0))  # (D,) standard deviation of the image embeddings
    predicted: FloatArray = field(default_factory=lambda: _empty(0))  # (U,) zero-shot class of each unlabelled image
    predicted_on: float = np.nan  # which images: cells with another number saw others
