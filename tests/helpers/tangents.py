"""Exact forward-mode conductance: dh/dalpha by dual numbers. A test oracle; one such pass costs 4 to 6 plain ones.

C = sum over k of w_k dF/dh(alpha_k) dh/dalpha(alpha_k) with Gauss-Legendre points and weights. At every point the sum
over a block's neurons is dF/dalpha to machine precision (pointwise completeness).

Attention must run in the math backend, and some kernels have no forward rule (SiLU's backward): such towers are left to
the other oracles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlmsel_auto.conductance.scalars import Scalar
from vlmsel_auto.conductance.sweep import Sweep
from vlmsel_auto.records import FloatArray


def tangent_conductance(
    visual: nn.Module, images: Tensor, *, scalar: Scalar, blocks: Sequence[str], points: int, start: Tensor
) -> tuple[FloatArray, ...]:
    """Conductance of every neuron by exact tangents.

    Args:
        visual: tower in eval mode.
        images: (n, C, H, W) normalised.
        scalar: F.
        blocks: module names, shallow to deep.
        points: Gauss-Legendre points on [0, 1].
        start: (1 or n, C, H, W) baseline.

    Returns:
        B arrays (n, *block shape), float64; blocks must keep rows first.
    """
    alphas, weights = np.polynomial.legendre.leggauss(points)
    totals: dict[int, Tensor] = {}
    with torch.no_grad():
        target = scalar.target(visual(images))
    for alpha, weight in zip((alphas + 1) / 2, weights / 2, strict=True):
        rows = start + float(alpha) * (images - start)
        tangents = _tangents(visual, rows, (images - start).expand_as(rows), blocks)

        def add(index: int, h: Tensor, g: Tensor, weight: float = weight, tangents: list[Tensor] = tangents) -> None:
            term = weight * g * tangents[index].to(h)
            totals[index] = totals[index] + term if index in totals else term

        with Sweep(visual, blocks) as sweep:
            sweep.run(rows, lambda embedding: scalar.value(embedding, target), add)
    return tuple(totals[index].double().cpu().numpy() for index in range(len(blocks)))


def _tangents(visual: nn.Module, rows: Tensor, direction: Tensor, blocks: Sequence[str]) -> list[Tensor]:
    """Directional derivative of each block's output at ``rows`` along ``direction``."""
    found: list[Tensor] = []

    def record(module: nn.Module, args: object, output: Tensor) -> None:
        tangent = forward_ad.unpack_dual(output).tangent  # type: ignore[no-untyped-call] # torch leaves it untyped
        found.append(torch.zeros_like(output) if tangent is None else tangent.detach().clone())

    handles = [visual.get_submodule(name).register_forward_hook(record) for name in blocks]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused kernel has no forward rule
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            dual = forward_ad.make_dual(rows, direction.contiguous())  # type: ignore[no-untyped-call] # likewise
            visual(dual)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
    return found
