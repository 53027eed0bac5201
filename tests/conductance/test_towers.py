"""Conductance end to end on small real towers of the families that open_clip builds."""

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.coca_model import CoCa
from torch import nn

from vlmsel_auto.conductance.layer import conductance
from vlmsel_auto.conductance.scalars import make_scalar


def _liven(tower):
    """Biases away from zero, as training leaves them: normalisation layers are singular at an all-zero input."""
    for name, value in tower.named_parameters():
        if value.ndim == 1:
            nn.init.normal_(value, 1.0 if name.endswith("weight") else 0.0, 0.3)
    return tower.eval().double()


def _images(n, side):
    small = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    return nn.functional.interpolate(small, size=(side, side), mode="bilinear")


def _timm(name, **settings):
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    torch.manual_seed(1)
    tower = timm.create_model(name, num_classes=16, **settings)
    if isinstance(tower.head, nn.Linear):
        nn.init.normal_(tower.head.weight, std=0.2)  # EVA's starts at nearly zero
    return _liven(tower)


SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 2}
TIMM = {
    "naflex": (lambda: _timm("naflexvit_base_patch16_gap", **SMALL), 64, ["blocks.0", "blocks.1"], 32),
    "siglip": (lambda: _timm("vit_base_patch16_siglip_224", img_size=64, **SMALL), 64, ["blocks.0", "blocks.1"], 32),
    "eva02": (
        lambda: _timm("eva02_tiny_patch14_224", img_size=56, **SMALL),
        56,
        ["blocks.0", "blocks.1"],
        32,
    ),
    "mobileclip": (
        lambda: _timm("fastvit_mci0", layers=(1, 1, 1, 1), embed_dims=(16, 16, 32, 32)),
        64,
        [f"stages.{i}.blocks.0" for i in range(4)],
        16,
    ),
    "fastvit": (
        lambda: _timm("fastvit_t8", layers=(1, 1, 1, 1), embed_dims=(16, 16, 32, 32)),
        64,
        [f"stages.{i}.blocks.0" for i in range(4)],
        16,
    ),
    "maxvit": (lambda: _timm("test_maxvit"), 160, None, None),
    "coatnet": (lambda: _timm("test_coatnet"), 160, None, None),
}


@pytest.mark.parametrize("family", TIMM)
def test_timm_towers_are_complete_at_every_block(family):
    build, side, blocks, channels = TIMM[family]
    tower = build()
    images = _images(2 if side < 100 else 1, side)
    coarse = conductance(tower, images, scalar=make_scalar("norm"), points=9)
    fine = conductance(tower, images, scalar=make_scalar("norm"), points=33 if side < 100 else 17)
    if blocks is not None:
        assert list(fine.blocks) == blocks
        assert fine.signature[0].shape == (2, channels)
    gap = fine.completeness_error * np.abs(fine.total)[:, None] / fine.activity
    assert gap.max() < (2e-3 if fine.integrator == "trapezoid" else 1e-4)
    assert gap.mean() < (coarse.completeness_error * np.abs(coarse.total)[:, None] / coarse.activity).mean()
    with torch.no_grad():
        expected = tower(images).norm(dim=-1) - tower(torch.zeros_like(images)).norm(dim=-1)
    np.testing.assert_allclose(fine.total, expected, rtol=1e-9)


@pytest.fixture(scope="module")
def coca():
    torch.manual_seed(0)
    model = CoCa(
        embed_dim=16,
        vision_cfg={
            "layers": 2,
            "width": 32,
            "head_width": 16,
            "image_size": 32,
            "patch_size": 8,
            "attentional_pool": True,
            "attn_pooler_queries": 8,
            "attn_pooler_heads": 4,
            "output_tokens": True,
        },
        text_cfg={"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1, "embed_cls": True},
        multimodal_cfg={"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    )
    return _liven(model)


def test_cocas_own_tower_which_returns_pooled_and_tokens(coca):
    images = _images(2, 32)
    with torch.no_grad():
        assert isinstance(coca.visual(images), tuple)
    text = nn.functional.normalize(torch.randn(3, 16, dtype=torch.float64), dim=-1)
    scalar = make_scalar("margin", text_features=text, logit_scale=10.0)
    result = conductance(coca.visual, images, scalar=scalar, points=33)
    assert result.blocks == ("transformer.resblocks.0", "transformer.resblocks.1")
    assert result.completeness_error.max() < 1e-4
    with torch.no_grad():
        embedding, zero = (coca.encode_image(x, normalize=False) for x in (images, torch.zeros_like(images)))
        target = scalar.target(embedding)
        expected = scalar.value(embedding, target) - scalar.value(zero, target)
    np.testing.assert_array_equal(result.target, target)
    np.testing.assert_allclose(result.total, expected, rtol=1e-9)


@pytest.mark.slow
def test_the_whole_coca_vit_b_32():
    torch.manual_seed(0)
    visual = open_clip.create_model("coca_ViT-B-32").eval().visual
    images = _images(1, 224).float()
    result = conductance(visual, images, scalar=make_scalar("norm"), points=17)
    assert len(result.blocks) == 12
    gap = result.completeness_error * np.abs(result.total)[:, None] / result.activity
    assert gap.max() < 0.01
