"""Where the path to an image starts."""

from __future__ import annotations

import math
from typing import Literal, assert_never, get_args

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from vlmsel_auto.errors import ConductanceError

__all__ = ["Baseline", "make_baseline"]

Baseline = Literal["zeros", "mean", "blurred"]
_BLUR = 0.1  # standard deviation of the blur in sides of the image


def make_baseline(baseline: Baseline | Tensor, images: Tensor) -> tuple[Tensor, str]:
    """Start points x0 for ``images`` (n, C, H, W), normalised.

    Args:
        baseline: "zeros": the normalisation's mean colour; "mean": mean of the given images; "blurred": each image
            blurred by a Gaussian of a tenth of its side; or an own start image (C, H, W), normalised.
        images: (n, C, H, W).

    Returns:
        (x0 of shape (1, C, H, W) or (n, C, H, W), name).

    Raises:
        ConductanceError: unknown name, or an own image of another shape or not finite.
    """
    if isinstance(baseline, Tensor):
        if baseline.shape != images.shape[1:] or not bool(torch.isfinite(baseline).all()):
            raise ConductanceError(
                f"a baseline image must be finite and {tuple(images.shape[1:])}, but got {tuple(baseline.shape)}"
            )
        return baseline.to(images)[None], "image"
    if baseline not in get_args(Baseline):
        raise ConductanceError(f"baseline must be 'zeros', 'mean', 'blurred' or a tensor, but got {baseline!r}")
    match baseline:
        case "zeros":
            return torch.zeros_like(images[:1]), baseline
        case "mean":
            return images.mean(dim=0, keepdim=True), baseline
        case "blurred":
            sigma = _BLUR * min(images.shape[2:])
            size = min(2 * math.ceil(2.5 * sigma) + 1, 2 * min(images.shape[2:]) - 1)  # reflection needs half < side
            return gaussian_blur(images, [size, size], [sigma, sigma]), baseline
        case _:
            assert_never(baseline)
