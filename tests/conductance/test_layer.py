import gc
import math
import sys
import weakref

import numpy as np
import open_clip
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transformer import VisionTransformer
from torch import nn

from helpers.own_process import run_python
from helpers.tangents import tangent_conductance
from helpers.towers import liven, smooth_images, timm_tower
from vlmsel_auto.conductance import path_integral
from vlmsel_auto.conductance.contraction import Part, RunningSum, contract_levels, estimate_error
from vlmsel_auto.conductance.layer import choose_integrator, conductance
from vlmsel_auto.conductance.quadrature import make_rule
from vlmsel_auto.conductance.scalars import Margin, make_scalar
from vlmsel_auto.conductance.sweep import Sweep
from vlmsel_auto.errors import ConductanceError


def _text(classes, width, dtype=torch.float64):
    text = torch.randn(classes, width, generator=torch.Generator().manual_seed(5), dtype=dtype)
    return nn.functional.normalize(text, dim=-1)


def _margin(width=16, scale=20.0, dtype=torch.float64):
    return make_scalar("margin", text_features=_text(4, width, dtype), logit_scale=scale)


def _vit(**options):
    torch.manual_seed(1)
    plain = {"image_size": 16, "patch_size": 4, "width": 24, "layers": 3, "heads": 2, "mlp_ratio": 2.0}
    return liven(VisionTransformer(**plain, output_dim=16, **options))


@pytest.fixture(scope="module")
def vit():
    return _vit()


@pytest.fixture(scope="module")
def trained(minizoo):
    """Trained ViT of the mini zoo, and its margin between five classes."""
    model = open_clip.create_model(f"local-dir:{minizoo / 'ViT-Mi-16-64.all-m'}").eval().double()
    scale = float(model.logit_scale.detach().exp())
    return model.visual, make_scalar("margin", text_features=_text(5, 96), logit_scale=scale)


def _true_error(result, reference):
    """E of every image, mean over blocks."""
    pairs = list(zip(result, reference, strict=True))
    images = range(len(reference[0]))
    return np.array([np.mean([np.abs(a[i] - b[i]).sum() / np.abs(b[i]).sum() for a, b in pairs]) for i in images])


TOWERS = {
    "class token": lambda: (_vit(), 16),
    "average pool": lambda: (_vit(pool_type="avg", final_ln_after_pool=True), 16),
    "attention pool, tokens": lambda: (
        _vit(attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=2, output_tokens=True),
        16,
    ),
    "resnet": lambda: (open_clip.modified_resnet.ModifiedResNet([1, 1, 1, 1], 16, 8, 32, 8).eval().double(), 32),
    "convnext": lambda: (timm_tower("test_convnext2", image_size=32), 32),
    "efficientnet": lambda: (timm_tower("test_efficientnet", image_size=32), 32),
    "maxvit": lambda: (timm_tower("test_maxvit", image_size=160), 160),
    "coatnet": lambda: (timm_tower("test_coatnet", image_size=160), 160),
    "timm vit": lambda: (timm_tower("test_vit3", image_size=160, pool="map"), 160),
    "nfnet": lambda: (timm_tower("test_nfnet", image_size=32), 32),
}


@pytest.mark.parametrize("tower", TOWERS)
def test_completeness_at_every_block_of_every_kind_of_tower(tower):
    visual, side = TOWERS[tower]()
    result = conductance(visual, smooth_images(1, side), scalar=make_scalar("norm"), points=33 if side < 100 else 17)
    assert len(result.blocks) >= 2
    limit = 0.05 if result.integrator == "trapezoid" else 1e-4
    assert result.completeness_error.max() < limit
    for b, (signed, absolute) in enumerate(zip(result.signature, result.absolute, strict=True)):
        np.testing.assert_allclose(absolute.sum(1), result.activity[:, b], rtol=1e-12)
        np.testing.assert_allclose(
            np.abs(signed.sum(1) - result.total), result.completeness_error[:, b] * np.abs(result.total), atol=1e-12
        )


def test_signatures_are_per_channel(trained):
    visual, scalar = trained
    result = conductance(visual, smooth_images(2, 64), scalar=scalar, points=9, neurons=True)
    assert [s.shape for s in result.signature] == [(2, 128)] * 6
    assert result.neurons[0].shape == (2, 17, 128)
    np.testing.assert_allclose(result.neurons[3].sum(1), result.signature[3], atol=1e-12)
    np.testing.assert_allclose(np.abs(result.neurons[3]).sum(1), result.absolute[3], atol=1e-12)


def test_channels_last_maps_have_channel_signatures():
    torch.manual_seed(0)
    small = {"img_size": 64, "window_size": 4, "embed_dim": 12, "depths": (1, 2), "num_heads": (2, 2)}
    trunk = timm.create_model("swin_tiny_patch4_window7_224", **small, num_classes=8)
    result = conductance(liven(trunk), smooth_images(1, 64), scalar=make_scalar("norm"), points=17)
    assert result.blocks == ("layers.0.blocks.0", "layers.1.blocks.0", "layers.1.blocks.1")
    assert [s.shape for s in result.signature] == [(1, 12), (1, 24), (1, 24)]
    assert result.completeness_error.max() < 1e-3


# accuracy


@pytest.mark.parametrize("tower", ["class token", "resnet", "convnext"])
def test_exact_tangents_are_the_limit(tower):
    visual, side = TOWERS[tower]()
    images, scalar = smooth_images(2, side), _margin()
    points, limit = (97, 0.06) if tower == "resnet" else (49, 1e-6)
    result = conductance(visual, images, scalar=scalar, points=points, neurons=True)
    assert result.elements == tuple(block[0].size for block in result.neurons)
    start = torch.zeros_like(images)
    exact = tangent_conductance(
        visual, images, scalar=scalar, blocks=result.blocks, points=2 * points // 3, start=start
    )
    assert _true_error(result.neurons, exact).max() < limit


def test_spectral_error_falls_exponentially_and_trapezoid_quadratically(trained):
    visual, scalar = trained
    images = smooth_images(2, 64)

    def neurons(kind, points):
        return conductance(visual, images, scalar=scalar, integrator=kind, points=points, neurons=True).neurons

    reference = neurons("spectral", 65)
    spectral = [_true_error(neurons("spectral", p), reference).mean() for p in (9, 17, 33)]
    trapezoid = [_true_error(neurons("trapezoid", p), reference).mean() for p in (9, 17, 33)]
    left = _true_error(neurons("left", 33), reference).mean()
    assert spectral[0] < 0.1
    assert spectral[1] < 0.01
    assert spectral[2] < 1e-4
    assert trapezoid[1] / trapezoid[2] == pytest.approx(4, rel=0.2)
    assert left > 3 * trapezoid[2]


@pytest.mark.parametrize("wanted", [0.05, 0.01, 1e-4])
def test_the_wanted_error_is_reached_and_honestly_estimated(trained, wanted):
    visual, scalar = trained
    images = smooth_images(3, 64)
    result = conductance(visual, images, scalar=scalar, error=wanted, neurons=True)
    reference = conductance(visual, images, scalar=scalar, points=97, neurons=True).neurons
    true = _true_error(result.neurons, reference)
    assert result.reached
    assert (result.error <= wanted).all()
    assert (true <= 1.5 * result.error).all()


def test_estimates_on_towers_with_kinks_lie_near_the_truth(minizoo):
    visual = open_clip.create_model(f"local-dir:{minizoo / 'RN-Mi-64.all-m'}").eval().double().visual
    images, scalar = smooth_images(1, 64), make_scalar("norm")
    assert choose_integrator(visual) == "trapezoid"
    reference = conductance(visual, images, scalar=scalar, points=257, neurons=True).neurons
    result = conductance(visual, images, scalar=scalar, points=33, neurons=True)
    true = _true_error(result.neurons, reference)
    assert (true < 1.3 * result.error).all()
    assert (true > 0.4 * result.error).all()


def test_nested_points_are_reused_and_change_nothing(trained, monkeypatch):
    visual, scalar = trained
    images = smooth_images(2, 64)
    swept = []
    run = Sweep.run
    monkeypatch.setattr(Sweep, "run", lambda self, rows, *rest: (swept.append(len(rows)), run(self, rows, *rest))[1])
    climbed = conductance(visual, images, scalar=scalar, error=1e-4)
    assert sum(swept) == climbed.points.sum()  # not one point twice
    fixed = conductance(visual, images, scalar=scalar, points=int(climbed.points[0]))
    np.testing.assert_allclose(climbed.activity[0], fixed.activity[0], rtol=1e-10)


def test_what_cannot_be_reached_is_said(trained):
    result = conductance(trained[0], smooth_images(1, 64), scalar=make_scalar("norm"), error=1e-9, max_points=17)
    assert not result.reached
    assert result.points.tolist() == [17]


def test_the_error_is_reached_where_every_image_has_it(vit, monkeypatch):
    monkeypatch.setattr(path_integral, "estimate_error", lambda _kind, fine, _rough: np.arange(len(fine), dtype=float))
    result = conductance(vit, smooth_images(2, 16), scalar=_margin(), error=0.5, max_points=9)
    assert (result.error[0] < 0.5 < result.error[1], result.reached) == (True, False)


def test_no_error_is_reported_below_what_completeness_shows(vit, monkeypatch):
    monkeypatch.setattr(path_integral, "estimate_error", lambda _kind, fine, _rough: np.zeros_like(fine))
    result = conductance(vit, smooth_images(2, 16), scalar=_margin(), points=5)
    gap = result.completeness_error * np.abs(result.total)[:, None] / result.activity
    np.testing.assert_allclose(result.error, gap.mean(axis=1))
    assert result.error.min() > 0


def test_estimate_formulas():
    d1, d0 = np.array([0.01]), np.array([0.04])
    np.testing.assert_allclose(estimate_error("left", d1, d0), 0.01 / 3)
    np.testing.assert_allclose(estimate_error("trapezoid", d1, d0), 0.01 * 0.29 * 1.145)
    np.testing.assert_allclose(estimate_error("spectral", d1, d0), 0.01 * 0.25 * 1.125)
    assert estimate_error("spectral", d1, np.array([np.nan]))[0] == pytest.approx(0.01 * 0.1 * 1.05)
    assert math.isnan(estimate_error("trapezoid", np.array([np.nan]), d0)[0])
    assert estimate_error("spectral", np.zeros(1), np.zeros(1)) == 0


# axioms


def test_sensitivity_an_image_at_the_baseline_has_no_conductance(vit):
    images = smooth_images(2, 16)
    images[1] = 0
    result = conductance(vit, images, scalar=_margin(), points=17)
    assert result.activity[0].min() > 0
    assert result.activity[1].max() < 1e-11
    assert result.total[1] == 0


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(4)), budget=st.sampled_from([1, 200_000, 10**6, 10**9]), wanted=st.booleans())
def test_neither_order_nor_chunks_change_an_image(vit, order, budget, wanted):
    images = smooth_images(4, 16)
    how = {"error": 3e-3} if wanted else {"points": 9}
    whole = conductance(vit, images, scalar=_margin(), budget=10**9, **how)
    mixed = conductance(vit, images[list(order)], scalar=_margin(), budget=budget, **how)
    np.testing.assert_allclose(mixed.activity, whole.activity[list(order)], rtol=1e-6)
    np.testing.assert_allclose(mixed.signature[1], whole.signature[1][list(order)], rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(mixed.points, whole.points[list(order)])


@pytest.mark.parametrize("member", ["ConvNeXt-Mi-64.all-m", "RN-Mi-64.all-m"])
def test_chunks_of_one_row_agree_in_float32_too(minizoo, member):
    visual = open_clip.create_model(f"local-dir:{minizoo / member}").eval().visual
    images = smooth_images(2, 64, dtype=torch.float32)
    large, small = (
        conductance(visual, images, scalar=make_scalar("norm"), points=9, budget=budget, neurons=True)
        for budget in (10**9, 1)
    )
    np.testing.assert_allclose(small.activity, large.activity, rtol=1e-6)
    assert (_true_error(small.neurons, large.neurons) < 1e-6).all()


@pytest.mark.parametrize("kind", ["trapezoid", "left"])
@pytest.mark.parametrize("budget", [1, 4 * 10**6])
def test_points_summed_piece_by_piece_agree_with_points_held_together(minizoo, kind, budget):
    visual = open_clip.create_model(f"local-dir:{minizoo / 'RN-Mi-64.all-m'}").eval().double().visual
    images = smooth_images(2, 64)
    whole, pieces = (
        conductance(visual, images, scalar=make_scalar("norm"), integrator=kind, points=13, budget=b, neurons=True)
        for b in (2**30, budget)
    )
    for one, two in zip(whole.neurons, pieces.neurons, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-9 * np.abs(one).max())
    np.testing.assert_allclose(pieces.error, whole.error, rtol=1e-9)
    np.testing.assert_allclose(pieces.completeness_error, whole.completeness_error, rtol=1e-6)


@given(st.integers(1, 6), st.integers(1, 9), st.sampled_from(["trapezoid", "left"]))
def test_running_sums_are_those_of_the_whole(half, size, kind):
    rule = make_rule(kind, 4 * half)
    h, g = (torch.randn(2, 4 * half + 1, 3, dtype=torch.float64) for _ in range(2))
    running = RunningSum(rule)
    for stop in range(4 * half + 1, 0, -size):
        first = max(0, stop - size)
        running.add(Part(h=h[:, first:stop], g=g[:, first:stop]), first)
    for one, two in zip(running.sums(), contract_levels(rule, Part(h=h, g=g)), strict=True):
        torch.testing.assert_close(one, two)


def test_maps_with_channels_last_in_memory_give_neurons_as_the_block_has_them(minizoo):
    visual = open_clip.create_model(f"local-dir:{minizoo / 'EffNet-Mi-64.all-m'}").eval().double().visual
    images, scalar, shapes = smooth_images(2, 64), make_scalar("norm"), []
    found = conductance(visual, images, scalar=scalar, points=5, neurons=True)
    handles = [
        visual.get_submodule(name).register_forward_hook(lambda _m, _a, out: shapes.append(tuple(out.shape)))
        for name in found.blocks
    ]
    visual(images)
    for handle in handles:
        handle.remove()
    assert [n.shape for n in found.neurons] == shapes
    for neurons, signature, absolute in zip(found.neurons, found.signature, found.absolute, strict=True):
        np.testing.assert_allclose(neurons.sum((2, 3)), signature, atol=1e-12)
        np.testing.assert_allclose(np.abs(neurons).sum((2, 3)), absolute, atol=1e-12)


class _PlainOnly(nn.Module):
    """A convolution whose output is viewed, which maps with channels last do not allow."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)) for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = torch.tanh(block(x))
            x = x.view(len(x), -1).view(x.shape)
        return x.flatten(1)[:, :16]


def test_towers_that_need_plain_maps_get_them():
    torch.manual_seed(0)
    tower = _PlainOnly().eval().double()
    with pytest.raises(RuntimeError, match="view"):
        tower(smooth_images(2, 16).contiguous(memory_format=torch.channels_last))
    assert (
        conductance(tower, smooth_images(2, 16), scalar=make_scalar("norm"), points=33).completeness_error.max() < 1e-4
    )


def test_the_tower_is_left_as_it_was(trained):
    visual, _ = trained
    before = {k: v.clone() for k, v in visual.state_dict().items()}
    asked = [p.requires_grad for p in visual.parameters()]
    conductance(visual, smooth_images(1, 64), scalar=make_scalar("norm"), points=5)
    assert [p.requires_grad for p in visual.parameters()] == asked
    assert all(p.grad is None for p in visual.parameters())
    assert all(torch.equal(v, before[k]) for k, v in visual.state_dict().items())
    assert not any(m._forward_hooks for m in visual.modules())


# scalars


def test_the_predicted_class_is_that_of_the_image_itself(vit):
    images = smooth_images(3, 16)
    result = conductance(vit, images, scalar=_margin(), points=5)
    with torch.no_grad():
        embedding = vit(images)
        expected = (nn.functional.normalize(embedding, dim=-1) @ _text(4, 16).T).argmax(1)
        zero = vit(torch.zeros_like(images))
    np.testing.assert_array_equal(result.target, expected)
    f = Margin(text_features=_text(4, 16), logit_scale=20.0)
    np.testing.assert_allclose(result.total, f.value(embedding, expected) - f.value(zero, expected), rtol=1e-10)


def test_blocks_that_return_tuples_and_write_in_place():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            x = x[0] if isinstance(x, tuple) else x
            return x + self.b(torch.tanh(self.a(x))), None

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(12, 8)
            self.blocks = nn.ModuleList([Block(), Block(), Block()])
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            x = self.stem(x.flatten(1))
            for block in self.blocks:
                x = block(x)
            return self.head(x[0].mul_(0.5))  # in place on the last block's output

    torch.manual_seed(0)
    tower = Tower().eval().double()
    images = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    result = conductance(tower, images, scalar=make_scalar("norm"), points=33)
    assert result.completeness_error.max() < 1e-6


def test_out_of_memory_halves_the_chunk_lets_go_of_what_failed_and_changes_nothing(vit, monkeypatch):
    images = smooth_images(4, 16)
    plain = conductance(vit, images, scalar=_margin(), points=9)
    run, tried, held, alive = Sweep.run, [], [], []

    class Big:
        pass

    def stingy(self, rows, *rest):
        gc.collect()
        alive.append(sum(one() is not None for one in held))
        tried.append(len(rows))
        if len(rows) > 10:
            big = Big()
            held.append(weakref.ref(big))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(self, rows, *rest)

    monkeypatch.setattr(Sweep, "run", stingy)
    retried = conductance(vit, images, scalar=_margin(), points=9, budget=10**8)
    assert max(tried) > 10
    assert alive == [0] * len(alive)
    np.testing.assert_allclose(retried.activity, plain.activity, rtol=1e-9)
    monkeypatch.setattr(Sweep, "run", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(ConductanceError, match=r"one image of .* does not fit"):
        conductance(vit, images, scalar=_margin(), points=9, budget=10**6)


_TIGHT = """
import re, resource, sys
from pathlib import Path
import numpy as np, open_clip, torch
from vlmsel_auto.conductance import path_integral
from vlmsel_auto.conductance.layer import conductance
from vlmsel_auto.conductance.scalars import make_scalar
torch.set_num_threads(1)
visual = open_clip.create_model("local-dir:" + sys.argv[1]).eval().visual
images = torch.rand(48, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
plain = conductance(visual, images, scalar=make_scalar("norm"), points=9, budget=2**24)
retries, release = [], path_integral.release_memory
path_integral.release_memory = lambda device: (retries.append(device), release(device))
size = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 128 * 2**20, -1))
tight = conductance(visual, images, scalar=make_scalar("norm"), points=9, budget=2**32)
print(len(retries), np.abs(tight.activity / plain.activity - 1).max())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_real_allocation_failures_are_retried_smaller(minizoo):
    made = run_python("-c", _TIGHT, minizoo / "ViT-Mi-8-64.all-l")
    retries, difference = made.split()[-2:]
    assert int(retries) > 0
    assert float(difference) < 1e-6


# refusals


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((2, 3, 16, 16), torch.nan, dtype=torch.float64), r"finite.*images \[0, 1\]"),
        (torch.zeros(1, 3, 24, 24, dtype=torch.float64), r"\(16, 16\) pixels, but got \(24, 24\)"),
        (torch.zeros(3, 16, 16, dtype=torch.float64), r"got torch.float64 \(3, 16, 16\)"),
        (torch.zeros(0, 3, 16, 16, dtype=torch.float64), r"got torch.float64 \(0, 3"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "floating"),
    ],
)
def test_bad_images_are_refused(vit, images, message):
    with pytest.raises(ConductanceError, match=message):
        conductance(vit, images, scalar=_margin())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 8}, "odd and at least 3, but got 8"),
        ({"error": 0.0}, r"error must be in .*got 0\.0"),
        ({"max_points": 5}, "max_points must be at least 13"),
        ({"blocks": ("nowhere",)}, r"got \['nowhere'\]"),
        ({"blocks": ()}, r"got \(\)"),
    ],
)
def test_bad_settings_are_refused(vit, settings, message):
    with pytest.raises(ConductanceError, match=message):
        conductance(vit, smooth_images(1, 16), scalar=_margin(), **settings)


def test_towers_in_training_mode_are_refused():
    with pytest.raises(ConductanceError, match=r"eval mode.*tower in training mode"):
        conductance(_vit().train(), smooth_images(1, 16), scalar=_margin())
    resnet, side = TOWERS["resnet"]()
    resnet.layer2[0].bn1.train()
    with pytest.raises(ConductanceError, match=r"batch norm in training mode at 'layer2\.0\.bn1'"):
        conductance(resnet, smooth_images(1, side), scalar=_margin())


def test_constant_scalars_are_refused(vit):
    class UnitNorm:
        name = "unit norm"

        def target(self, embedding, /):
            return torch.zeros(len(embedding), dtype=torch.int64)

        def value(self, embedding, target, /):
            return nn.functional.normalize(embedding, dim=-1).norm(dim=-1)

    with pytest.raises(ConductanceError, match=r"'unit norm' is constant.*F = 1 everywhere"):
        conductance(vit, smooth_images(2, 16), scalar=UnitNorm())

    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = vit

        def forward(self, x):
            return nn.functional.normalize(self.visual(x), dim=-1)

    with pytest.raises(ConductanceError, match="'norm' is constant"):
        conductance(Normalised().eval(), smooth_images(2, 16), scalar=make_scalar("norm"))


def test_blocks_off_the_path_are_named(vit):
    with pytest.raises(ConductanceError, match=r"not run by the tower.*transformer\.resblocks\.1\.ls_1\.none|must be"):
        conductance(vit, smooth_images(1, 16), scalar=_margin(), blocks=("transformer.resblocks.1.ls_1.none",))

    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual, self.side = vit, nn.Linear(16, 16).double()
            self.unused = nn.Linear(2, 2)

        def forward(self, x):
            out = self.visual(x)
            self.side(out)
            return out

    tower = Idle().eval()
    blocks = ("visual.transformer.resblocks.0", "side")
    with pytest.raises(ConductanceError, match=r"do not reach the scalar.*\['side'\]"):
        conductance(tower, smooth_images(1, 16), scalar=_margin(), blocks=blocks)
    with pytest.raises(ConductanceError, match=r"not run by the tower.*\['unused'\]"):
        conductance(tower, smooth_images(1, 16), scalar=_margin(), blocks=(*blocks[:1], "unused"))


def test_own_rules_are_used_as_they_are(vit):
    rule = make_rule("spectral", 16)
    own = conductance(vit, smooth_images(1, 16), scalar=_margin(), integrator=rule)
    named = conductance(vit, smooth_images(1, 16), scalar=_margin(), integrator="spectral", points=17)
    np.testing.assert_array_equal(own.activity, named.activity)
