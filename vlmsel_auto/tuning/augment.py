"""Random affine crops and colour changes of a whole batch at once: one ``grid_sample``, no Python loop over images.

Strength s in [0, 1] scales every range below linearly; s = 0 is the identity. No flips unless asked for: digits,
letters and signs change their class when mirrored. The ranges at s = 1 are our own choice, a little wider than the
random resized crops of CLIP-style pretraining.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

_ZOOM = 0.35  # crops show between 1 - 0.35 and 1 of each side, or up to a sixth more than the image
_SHIFT = 0.15  # of half a side
_ROTATION = math.radians(20.0)
_SHEAR = 0.15
_STRETCH = 0.15  # log of the aspect ratio
_BRIGHTNESS = 0.25  # of the range [0, 1]
_CONTRAST = 0.4
_SATURATION = 0.6


def _uniform(count: int, spread: float, *, generator: torch.Generator) -> torch.Tensor:
    """(count,) uniform draws in [-spread, spread], on the CPU so that a seed means the same on every device."""
    return (torch.rand(count, generator=generator) * 2 - 1) * spread


def _affine(count: int, strength: float, *, flip: bool, generator: torch.Generator) -> torch.Tensor:
    """(count, 2, 3) maps from output to input coordinates, as ``affine_grid`` wants them."""
    angle = _uniform(count, _ROTATION * strength, generator=generator)
    shear = _uniform(count, _SHEAR * strength, generator=generator)
    stretch = torch.exp(_uniform(count, _STRETCH * strength, generator=generator) / 2)
    zoom = 1 - strength * _ZOOM * (torch.rand(count, generator=generator) * 1.5 - 0.5)
    shift = _uniform(2 * count, _SHIFT * strength, generator=generator).view(count, 2)
    mirror = torch.ones(count)
    if flip:
        mirror = 1 - 2 * torch.randint(0, 2, (count,), generator=generator).float()
    cosine, sine = torch.cos(angle), torch.sin(angle)
    theta = torch.empty(count, 2, 3)
    theta[:, 0, 0] = zoom * stretch * cosine * mirror
    theta[:, 0, 1] = zoom * stretch * (shear * cosine - sine)
    theta[:, 1, 0] = zoom / stretch * sine * mirror
    theta[:, 1, 1] = zoom / stretch * (shear * sine + cosine)
    theta[:, :, 2] = shift
    return theta


def _colour(images: torch.Tensor, strength: float, *, generator: torch.Generator) -> torch.Tensor:
    """Brightness, contrast and saturation, each drawn per image; ``images`` in [0, 1]."""
    count = images.shape[0]

    def draw(spread: float) -> torch.Tensor:
        return _uniform(count, spread * strength, generator=generator).to(images).view(count, 1, 1, 1)

    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (1 + draw(_SATURATION))
    middle = grey.mean(dim=(2, 3), keepdim=True)
    images = middle + (images - middle) * (1 + draw(_CONTRAST)) + draw(_BRIGHTNESS)
    return images.clamp(0, 1)


def augment(
    images: torch.Tensor,
    *,
    strength: float,
    generator: torch.Generator,
    flip: bool = False,
) -> torch.Tensor:
    """Change every image of a batch at random.

    Args:
        images: uint8 (n, S, S, 3) in 0..255, or floating point (n, 3, S, S) in [0, 1]; on any device.
        strength: 0 (identity) to 1 (strong).
        generator: a CPU generator; the same state gives the same change on every device.
        flip: also mirror half of the images left to right.

    Returns:
        A tensor of the same shape, type and device. At strength 0 without flips it is ``images`` itself.

    Raises:
        ValueError: strength outside [0, 1], or a tensor of another shape.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength of the augmentation must lie in [0, 1], but got {strength!r}")
    as_bytes = images.dtype == torch.uint8
    if images.ndim != 4 or images.shape[3 if as_bytes else 1] != 3:  # noqa: PLR2004 - image batches have four axes, three colours
        raise ValueError(
            "images must be uint8 (n, S, S, 3) or floating point (n, 3, S, S), "
            f"but got {images.dtype} of shape {tuple(images.shape)}"
        )
    if strength == 0 and not flip:
        return images
    values = images.permute(0, 3, 1, 2).float() / 255 if as_bytes else images
    theta = _affine(len(values), strength, flip=flip, generator=generator).to(values)
    grid = functional.affine_grid(theta, list(values.shape), align_corners=False)
    values = functional.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
    values = _colour(values, strength, generator=generator)
    if as_bytes:
        return (values * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return values
