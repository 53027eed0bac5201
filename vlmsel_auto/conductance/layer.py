"""Layer conductance of every visual block in one sweep, to a wanted error, in bounded memory.

C[b, i](x) = integral over alpha in [0, 1] of dF/dh[b, i] dh[b, i]/dalpha along x0 + alpha (x - x0), x0 = 0: the
normalisation's mean colour
(Dhamdhere, Sundararajan, Yan: How Important Is a Neuron?, 2018). The signed sum over a block that cuts the graph is
F(x) - F(x0) for every block (completeness), so blocks are told apart by absolute values and channels only.

All blocks share the passes over the points; the rules are in quadrature.py. Tests compare the result with Captum and
with exact forward-mode tangents.

Errors: E[image, block] = sum_i |C_i - C*_i| / sum_i |C*_i|, estimated from the rule on every other and every fourth
point, which costs no pass (contraction.estimate_error), and no less than completeness shows: E is at least
|sum C - (F(x) - F(x0))| / sum |C*|.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vlmsel_auto.conductance.batches import memory_budget
from vlmsel_auto.conductance.blocks import find_blocks
from vlmsel_auto.conductance.path_integral import PathIntegral
from vlmsel_auto.conductance.quadrature import Rule, make_rule
from vlmsel_auto.conductance.scalars import Scalar
from vlmsel_auto.errors import ConductanceError
from vlmsel_auto.records import FloatArray, IntArray

Integrator = Literal["auto", "spectral", "trapezoid", "left"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Conductance:
    """Conductance of n images in B blocks, reduced over neurons."""

    blocks: tuple[str, ...]  # (B,) module names, shallow to deep
    elements: tuple[int, ...]  # (B,) neurons of each block: activity / elements is the mean |C|
    activity: FloatArray  # (n, B) sum over neurons of |C|, units of F
    signature: tuple[FloatArray, ...]  # B arrays (n, C_b), C summed over tokens or pixels
    absolute: tuple[FloatArray, ...]  # B arrays (n, C_b), |C| summed over tokens or pixels
    total: FloatArray  # (n,) F(x) - F(x0)
    target: IntArray  # (n,) class that F speaks of, -1 where there is none
    completeness_error: FloatArray  # (n, B) |sum C - total| / |total| (0 where both vanish)
    error: FloatArray  # (n,) estimated E, mean over blocks
    points: IntArray  # (n,) points of the path evaluated for each image
    reached: bool  # whether every image's estimated error is at most the wanted one (True with fixed ``points``)
    integrator: str  # rule used
    neurons: tuple[FloatArray, ...] | None = None  # B arrays (n, *block shape) of C, or None unless asked for


def conductance(
    visual: nn.Module,
    images: Tensor,
    *,
    scalar: Scalar,
    blocks: Sequence[str] | None = None,
    integrator: Integrator | Rule = "auto",
    error: float = 0.01,
    points: int | None = None,
    max_points: int = 129,
    budget: int | None = None,
    neurons: bool = False,
) -> Conductance:
    """Conductance of every block of ``visual`` on ``images``.

    Args:
        visual: visual tower in eval mode; images (n, C, H, W) -> unnormalised embeddings (n, D). Left as it was.
        images: (n, C, H, W) normalised, finite, of the tower's dtype.
        scalar: F, see scalars.py.
        blocks: module names, shallow to deep; None: ``blocks.find_blocks``.
        integrator: "auto" takes "trapezoid" for towers with kinks (ReLU and kin), else "spectral"; a ``Rule`` is used
            as it is (no error estimate beyond its coarser rule).
        error: wanted mean relative error per neuron (E above) of each image; ignored with ``points`` or a ``Rule``.
        points: fixed number of points, odd and at least 3; None: as many as ``error`` needs.
        max_points: where the search for ``error`` ends; see ``Conductance.reached``.
        budget: bytes that passes may take; None: a share of what is free. Results do not depend on it.
        neurons: also return C of every neuron.

    Raises:
        ConductanceError: bad images, tower, scalar, blocks or settings; F constant; out of memory at one row.
    """
    _check_tower(visual)
    _check_images(visual, images)
    names = _checked_blocks(visual, find_blocks(visual) if blocks is None else tuple(blocks))
    rules, wanted = _schedule(visual, integrator, error=error, points=points, max_points=max_points)
    device = next((p.device for p in visual.parameters()), images.device)
    images = images.detach().to(device)
    integral = PathIntegral(
        visual=visual,
        names=names,
        scalar=scalar,
        images=images,
        rules=rules,
        wanted=wanted,
        budget=memory_budget(device) if budget is None else budget,
        keep_neurons=neurons,
    )
    integral.run()
    return _reduced(integral)


def _reduced(integral: PathIntegral) -> Conductance:
    """What a path integral that has run says of every image."""
    arrays, wanted = integral.arrays, integral.wanted
    total = arrays.ends[:, 1] - arrays.ends[:, 0]
    return Conductance(
        blocks=integral.names,
        elements=tuple(math.prod(shape) for shape in integral.foot.shapes),
        activity=arrays.activity,
        signature=tuple(arrays.signature),
        absolute=tuple(arrays.absolute),
        total=total,
        target=arrays.target,
        completeness_error=_ratio(np.abs(arrays.signed - total[:, None]), np.abs(total)[:, None]),
        error=arrays.error,
        points=arrays.points,
        reached=wanted is None or bool((arrays.error <= wanted).all()),
        integrator=integral.rules[0].kind,
        neurons=tuple(arrays.neurons) if integral.keep_neurons else None,
    )


_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh)
_KINKED = (*_ACTIVATIONS, nn.MaxPool2d, nn.AdaptiveMaxPool2d)


def choose_integrator(visual: nn.Module) -> Literal["spectral", "trapezoid"]:
    """Trapezoid if the tower has activations with kinks, where the spectral rule gains nothing; else spectral."""
    kinked = any(isinstance(module, _KINKED) for module in visual.modules())
    return "trapezoid" if kinked else "spectral"


def _schedule(
    visual: nn.Module, integrator: Integrator | Rule, *, error: float, points: int | None, max_points: int
) -> tuple[tuple[Rule, ...], float | None]:
    """Rules to climb, each holding the points of the one before, and the error that ends it (None: one fixed rule)."""
    if isinstance(integrator, Rule):
        return (integrator,), None
    kind = choose_integrator(visual) if integrator == "auto" else integrator
    if points is not None:
        if points < 3 or points % 2 == 0:  # noqa: PLR2004 - the coarser rule gives the error
            raise ConductanceError(f"points must be odd and at least 3, but got {points}")
        return (make_rule(kind, points - 1),), None
    if not 1e-9 <= error < 1:  # noqa: PLR2004 - double precision ends there
        raise ConductanceError(f"error must be in [1e-9, 1), but got {error}")
    first = _first_intervals(kind, error)
    if max_points < first + 1:
        raise ConductanceError(f"max_points must be at least {first + 1} for error={error}, but got {max_points}")
    rules = [make_rule(kind, first)]
    while 2 * rules[-1].intervals + 1 <= max_points:
        rules.append(make_rule(kind, 2 * rules[-1].intervals))
    return tuple(rules), error


def _first_intervals(kind: str, error: float) -> int:
    """Where climbing starts: what trained towers of that kind mostly need (design measurements)."""
    if kind == "spectral":
        return 8 if error >= 0.03 else 12 if error >= 0.004 else 16  # noqa: PLR2004 - see docstring
    return 8 if error >= 0.1 else 16 if error >= 0.03 else 32  # noqa: PLR2004 - see docstring


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Ratio of non-negative arrays with 0 / 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(part > 0, part / whole, 0.0)


def _check_tower(visual: nn.Module) -> None:
    for name, module in visual.named_modules():
        if module.training:
            what = "batch norm in training mode" if isinstance(module, _BatchNorm) else "a tower in training mode"
            raise ConductanceError(
                f"conductance needs the tower in eval mode; call .eval() first, but got {what} at {name or 'the top'!r}"
            )


def _check_images(visual: nn.Module, images: Tensor) -> None:
    if images.ndim != 4 or 0 in images.shape or not images.is_floating_point():  # noqa: PLR2004 - (n, C, H, W)
        raise ConductanceError(
            f"images must be floating and (n, channels, height, width), but got {images.dtype} {tuple(images.shape)}"
        )
    finite = torch.isfinite(images).flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = torch.nonzero(~finite).flatten().tolist()
        raise ConductanceError(f"images must be finite, but got NaN or infinite pixels in images {bad[:10]}")
    size = getattr(visual, "image_size", None)
    wanted = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, tuple | list) else None
    if wanted is not None and tuple(images.shape[2:]) != wanted:
        raise ConductanceError(f"this tower takes images of {wanted} pixels, but got {tuple(images.shape[2:])}")


def _checked_blocks(visual: nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
    known = {name for name, _ in visual.named_modules()}
    missing = [name for name in names if name not in known]
    if not names or missing or len(set(names)) < len(names):
        raise ConductanceError(f"blocks must be different module names of the tower, but got {missing or names!r}")
    return names
