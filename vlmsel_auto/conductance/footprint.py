"""What two rows tell before the work begins: memory, shapes, order of pixels, and whether the scalar can change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vlmsel_auto.conductance.blocks import Layout, detect_layout, to_rows, turned
from vlmsel_auto.conductance.scalars import Scalar
from vlmsel_auto.conductance.sweep import Sweep, Value
from vlmsel_auto.errors import ConductanceError
from vlmsel_auto.records import FloatArray

_CONSTANT = 1e-5  # relative change of F below which it counts as constant; float32 noise is 1e-6


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one row (an image at a point of the path) takes."""

    graph_bytes: int  # of tensors saved for the backward pass
    block_bytes: tuple[int, ...]  # of each block's output
    layouts: tuple[Layout, ...]  # where each block's output keeps rows and channels
    shapes: tuple[tuple[int, ...], ...]  # of each block's output as ``to_rows`` gives it, without the rows


def measure(sweep: Sweep, rows: Tensor, scalar: Scalar) -> tuple[Footprint, torch.memory_format]:
    """Memory and shapes of one row of ``rows`` (R, C, H, W), and the order in which pixels are put in.

    On CPUs convolutions are faster with channels last (docs/results/conductance.md); towers that cannot take that get
    plain rows.

    Raises:
        ConductanceError: F is constant by construction (the norm of a normalised embedding) or not finite.
    """

    def value(embedding: Tensor) -> Tensor:
        result = scalar.value(embedding, scalar.target(embedding.detach()))
        if result.requires_grad:
            (slope,) = torch.autograd.grad(result.sum(), embedding, retain_graph=True)
            seen = result.detach()
            if not bool(torch.isfinite(seen).all()):
                raise ConductanceError(f"the scalar {scalar.name!r} must be finite, but got {seen.tolist()}")
            if float(slope.norm() * embedding.detach().norm()) <= _CONSTANT * float(seen.abs().sum()):
                raise ConductanceError(_constant_message(scalar.name, float(seen[0])))
        return result

    declared = _declared_layout(sweep.visual)
    if rows.device.type == "cpu" and _convolves(sweep):
        last = torch.channels_last
        try:
            return _footprint(sweep, rows.contiguous(memory_format=last), value, declared), last
        except RuntimeError:  # a module takes views that only plain maps have
            pass
    return _footprint(sweep, rows, value, declared), torch.contiguous_format


def _footprint(sweep: Sweep, rows: Tensor, value: Value, declared: str | None) -> Footprint:
    """Memory and shapes of one row, from one forward pass over ``rows`` (R, C, H, W)."""
    known = {p.untyped_storage().data_ptr() for p in sweep.visual.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = sweep.outputs(rows, value)
    count = len(rows)
    layouts = [turned(output, detect_layout(tuple(output.shape), count, declared)) for output in outputs]
    views = [to_rows(output, count, layout) for output, layout in zip(outputs, layouts, strict=True)]
    return Footprint(
        graph_bytes=-(-sum(saved.values()) // count),
        block_bytes=tuple(max(view.element_size(), 4) * view[0].numel() for view in views),
        layouts=tuple(layouts),
        shapes=tuple(tuple(view.shape[1:]) for view in views),
    )


def check_ends(ends: FloatArray, scalar: Scalar) -> None:
    """Refuse a scalar whose values (n, 2) at both ends of the paths are all alike.

    Raises:
        ConductanceError: they are.
    """
    if len(ends) and (np.abs(ends[:, 1] - ends[:, 0]) <= _CONSTANT * np.abs(ends).max()).all():
        raise ConductanceError(_constant_message(scalar.name, float(ends[0, 1])))


def _convolves(sweep: Sweep) -> bool:
    return any(
        isinstance(module, nn.Conv2d) for name in sweep.blocks for module in sweep.visual.get_submodule(name).modules()
    )


def _declared_layout(visual: nn.Module) -> str | None:
    """NHWC or NCHW where the tower declares the layout of its maps (timm), else None."""
    declared = getattr(getattr(visual, "trunk", visual), "output_fmt", None)
    return None if declared is None else str(getattr(declared, "value", declared))


def _constant_message(name: str, value: float) -> str:
    return (
        f"the scalar {name!r} is constant along the path, so it has no conductance; use the margin, or the norm of the "
        f"UNNORMALISED embedding, but got F = {value:.6g} everywhere"
    )
