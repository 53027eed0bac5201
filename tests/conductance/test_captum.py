"""Second source: Captum's LayerConductance at the same points and rule, block by block."""

import numpy as np
import open_clip
import pytest
import torch
from captum.attr import LayerConductance
from open_clip.transformer import VisionTransformer
from torch import nn

from vlmsel_auto.conductance.layer import conductance
from vlmsel_auto.conductance.quadrature import Rule, chebyshev_points, left_matrix, make_rule
from vlmsel_auto.conductance.scalars import make_scalar


def _member(name):
    def build(minizoo):
        model = open_clip.create_model(f"local-dir:{minizoo / name}").eval().double()
        return model.visual, 64

    return build


def _vit(_):
    return VisionTransformer(image_size=32, patch_size=8, width=64, layers=4, heads=4, mlp_ratio=4.0, output_dim=96), 32


TOWERS = {
    "mini ViT": _member("ViT-Mi-16-64.all-m"),
    "mini ResNet": _member("RN-Mi-64.all-m"),
    "mini ConvNeXt": _member("ConvNeXt-Mi-64.all-m"),
    "random ViT": _vit,
}


@pytest.fixture(params=TOWERS)
def case(request, minizoo):
    torch.manual_seed(0)
    visual, side = TOWERS[request.param](minizoo)
    visual = visual.eval().double()
    generator = torch.Generator().manual_seed(1)
    small = torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.float64) * 2 - 1
    text = nn.functional.normalize(torch.randn(5, 96, generator=generator, dtype=torch.float64), dim=-1)
    images = nn.functional.interpolate(small, size=(side, side), mode="bilinear")
    return visual, images, make_scalar("margin", text_features=text, logit_scale=20.0)


def _captum(visual, images, scalar, block, alphas, *, backwards=False):
    """Left differences at ``alphas``; the class is fixed at the images, also where the points are walked backwards."""
    with torch.no_grad():
        target = scalar.target(visual(images))

    def forward(rows, target):
        return scalar.value(visual(rows), target)

    zeros = torch.zeros_like(images)
    oracle = LayerConductance(forward, visual.get_submodule(block))
    found = oracle._attribute(
        (zeros if backwards else images,),
        (images if backwards else zeros,),
        additional_forward_args=target,
        n_steps=len(alphas) - 1,
        step_sizes_and_alphas=([], list(1.0 - alphas[::-1] if backwards else alphas)),
    )
    return found.detach().numpy()


def _relative(a, b):
    return np.abs(a - b).sum() / np.abs(b).sum()


def test_left_differences_on_equal_steps_and_on_chebyshev_points(case):
    visual, images, scalar = case
    for points in (np.linspace(0, 1, 9), chebyshev_points(8)):
        rule = Rule(kind="left", points=points, matrix=left_matrix(9))
        ours = conductance(visual, images, scalar=scalar, integrator=rule, neurons=True)
        for name, neurons in zip(ours.blocks, ours.neurons, strict=True):
            assert _relative(neurons, _captum(visual, images, scalar, name, points)) < 1e-5


def test_captums_default_points_which_leave_out_both_ends(case):
    visual, images, scalar = case
    points = (1 + np.polynomial.legendre.leggauss(7)[0]) / 2
    rule = Rule(kind="left", points=points, matrix=left_matrix(7))
    ours = conductance(visual, images, scalar=scalar, integrator=rule, neurons=True)
    target = torch.from_numpy(ours.target)

    def forward(rows, target):
        return scalar.value(visual(rows), target)

    for name, neurons in zip(ours.blocks, ours.neurons, strict=True):
        oracle = LayerConductance(forward, visual.get_submodule(name))
        found = oracle.attribute(images, baselines=0.0, additional_forward_args=target, n_steps=6).detach().numpy()
        assert _relative(neurons, found) < 1e-5
    whole = conductance(visual, images, scalar=scalar, points=3)
    np.testing.assert_allclose(ours.total, whole.total, rtol=1e-10)


def test_trapezoid_is_the_mean_of_captum_there_and_back(case):
    visual, images, scalar = case
    rule = make_rule("trapezoid", 6)
    ours = conductance(visual, images, scalar=scalar, integrator=rule, neurons=True)
    for name, neurons in zip(ours.blocks, ours.neurons, strict=True):
        there = _captum(visual, images, scalar, name, rule.points)
        back = _captum(visual, images, scalar, name, rule.points, backwards=True)
        assert _relative(neurons, (there - back) / 2) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "blocks", "side"), [("ViT-S-32-alt", 12, 224), ("RN50", 16, 64), ("convnext_tiny", 18, 64)]
)
def test_every_block_of_whole_open_clip_architectures(arch, blocks, side):
    torch.manual_seed(0)
    visual = open_clip.create_model(arch, force_image_size=side).eval().double().visual
    small = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    images = nn.functional.interpolate(small, size=(side, side), mode="bilinear")
    text = torch.randn(5, open_clip.get_model_config(arch)["embed_dim"], dtype=torch.float64)
    scalar = make_scalar("margin", text_features=nn.functional.normalize(text, dim=-1), logit_scale=20.0)
    ours = conductance(visual, images, scalar=scalar, integrator="left", points=3, neurons=True)
    assert len(ours.blocks) == blocks
    for name, neurons in zip(ours.blocks, ours.neurons, strict=True):
        assert _relative(neurons, _captum(visual, images, scalar, name, np.linspace(0, 1, 3))) < 1e-5


def test_captum_converges_to_the_spectral_rule(minizoo):
    visual, side = TOWERS["mini ViT"](minizoo)
    images = torch.linspace(-1, 1, 3 * side * side, dtype=torch.float64).reshape(1, 3, side, side)
    scalar = make_scalar("norm")
    ours = conductance(visual, images, scalar=scalar, integrator="spectral", points=33, neurons=True)
    name, neurons = ours.blocks[2], ours.neurons[2]
    errors = [_relative(_captum(visual, images, scalar, name, np.linspace(0, 1, n + 1)), neurons) for n in (32, 128)]
    assert errors[1] < 0.04
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)  # Captum's 1 / steps
