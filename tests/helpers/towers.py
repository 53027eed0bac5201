"""Small visual towers with random weights, and images for them."""

import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from torch import nn


def liven(tower: nn.Module) -> nn.Module:
    """Biases away from zero, as training leaves them: normalisation layers are singular at an all-zero input."""
    for name, value in tower.named_parameters():
        if value.ndim == 1:
            nn.init.normal_(value, 1.0 if name.endswith("weight") else 0.0, 0.3)
    return tower.eval().double()


def smooth_images(n: int, side: int, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    small = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype) * 2 - 1
    return nn.functional.interpolate(small, size=(side, side), mode="bilinear")


def timm_tower(name: str, **settings: object) -> nn.Module:
    """timm's model with these settings, or as open_clip wraps it at an ``image_size``."""
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    torch.manual_seed(1)
    if "image_size" in settings:
        return liven(TimmModel(name, embed_dim=16, proj="linear", **{"pool": "avg", **settings}))
    tower = timm.create_model(name, num_classes=16, **settings)
    if isinstance(tower.head, nn.Linear):
        nn.init.normal_(tower.head.weight, std=0.2)  # EVA's starts at nearly zero
    return liven(tower)
