"""A pretrained model, and the conductance of its blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.records.arrays import FloatArray
from vlmsel_auto.records.task import ImageView


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A pretrained model that may be tuned. Metadata only: no weights are touched to make one."""

    id: str  # unique and stable: "ViT-Mi-8-64.all-l", "ViT-B-32/laion2b_s34b_b79k", "local-dir:/models/x"
    source: str  # the row of `vlmsel_auto.models.sources.table.SOURCES` that it is of
    arch: str  # architecture name; kin of one family share its prefix
    tag: str  # pretraining tag
    path: Path | None = None  # folder of a candidate that lies on this disk
    view: ImageView
    params: int | None = None  # parameters of both towers
    flops: float | None = None  # floating-point operations (2 x multiply-adds) of one image through the visual tower
    family: str = "unknown"  # "vit", "resnet", "convnext", "efficientnet", ...
    has_text: bool = True  # False: a visual tower alone, which knows no class names


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """Conductance of every visual block of one candidate on some images of one task."""

    candidate: str
    task: str
    blocks: tuple[str, ...]  # (B,) module names, shallow to deep
    activity: FloatArray  # (n, B) sum over neurons of |C|, units of F
    signature: tuple[FloatArray, ...]  # B arrays (n, C_b): signed conductance summed over tokens or pixels
    absolute: tuple[FloatArray, ...]  # B arrays (n, C_b): |conductance| summed over tokens or pixels
    total: FloatArray  # (n,) F(x) - F(x0)
    completeness_error: FloatArray  # (n, B) |sum C - total| / |total|
    scalar: str  # "margin", "norm", ...
    baseline: str
    integrator: str
    points: int  # points of the path that were evaluated
    error: float  # achieved relative error per neuron, as estimated by the engine: mean over images
    wanted: float | None = None  # error that was asked for; None: the number of points was
    reached: bool = True  # whether every image's estimated error is at most the wanted one
    provenance: tuple[tuple[str, str], ...] = ()  # sorted (name, value): what it was made from and with
