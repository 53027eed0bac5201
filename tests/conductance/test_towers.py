"""Conductance end to end on small real towers of the families that open_clip builds."""

import numpy as np
import open_clip
import pytest
import torch
from open_clip.coca_model import CoCa
from torch import nn

from helpers.towers import liven, smooth_images, timm_tower
from vlmsel_auto.conductance.layer import conductance
from vlmsel_auto.conductance.scalars import make_scalar

VIT = {"depth": 2, "embed_dim": 32, "num_heads": 2}
FASTVIT = {"layers": (1, 1, 1, 1), "embed_dims": (16, 16, 32, 32)}
BLOCKS, STAGES = ("blocks.0", "blocks.1"), tuple(f"stages.{i}.blocks.0" for i in range(4))
TIMM = {  # others in test_layer.py
    "naflex": ("naflexvit_base_patch16_gap", VIT, 64, BLOCKS, 32),
    "siglip": ("vit_base_patch16_siglip_224", {**VIT, "img_size": 64}, 64, BLOCKS, 32),
    "eva02": ("eva02_tiny_patch14_224", {**VIT, "img_size": 56}, 56, BLOCKS, 32),
    "mobileclip": ("fastvit_mci0", FASTVIT, 64, STAGES, 16),
    "fastvit": ("fastvit_t8", FASTVIT, 64, STAGES, 16),
}


@pytest.mark.parametrize("family", TIMM)
def test_timm_towers_are_complete_at_every_block(family):
    name, settings, side, blocks, channels = TIMM[family]
    tower, images = timm_tower(name, **settings), smooth_images(2, side)
    coarse, fine = (conductance(tower, images, scalar=make_scalar("norm"), points=points) for points in (9, 33))
    assert fine.blocks == blocks
    assert fine.signature[0].shape == (2, channels)
    rough, gap = (each.completeness_error * np.abs(each.total)[:, None] / each.activity for each in (coarse, fine))
    assert gap.max() < (2e-3 if fine.integrator == "trapezoid" else 1e-4)
    assert gap.mean() < rough.mean()
    with torch.no_grad():
        expected = tower(images).norm(dim=-1) - tower(torch.zeros_like(images)).norm(dim=-1)
    np.testing.assert_allclose(fine.total, expected, rtol=1e-9)


@pytest.fixture(scope="module")
def coca():
    torch.manual_seed(0)
    pooler = {"attentional_pool": True, "attn_pooler_queries": 8, "attn_pooler_heads": 4, "output_tokens": True}
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    model = CoCa(
        embed_dim=16,
        vision_cfg={"layers": 2, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 8, **pooler},
        text_cfg={**text, "embed_cls": True},
        multimodal_cfg=text,
    )
    return liven(model)


def test_cocas_own_tower_which_returns_pooled_and_tokens(coca):
    images = smooth_images(2, 32)
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
    images = smooth_images(1, 224).float()
    result = conductance(visual, images, scalar=make_scalar("norm"), points=17)
    assert len(result.blocks) == 12
    gap = result.completeness_error * np.abs(result.total)[:, None] / result.activity
    assert gap.max() < 0.01
