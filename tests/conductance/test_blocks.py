from collections import namedtuple

import open_clip
import pytest
import timm
import torch
from open_clip.model import _build_vision_tower
from torch import nn

from vlmsel_auto.conductance.blocks import detect_layout, find_blocks, first_tensor, to_rows
from vlmsel_auto.errors import ConductanceError


def _names(prefix, counts, inner="blocks"):
    return tuple(f"{prefix}.{i}.{inner}.{j}" for i, n in enumerate(counts) for j in range(n))


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("ViT-Mi-8-64.all-l", tuple(f"transformer.resblocks.{i}" for i in range(6))),
        ("ViT-GAP-8-64.all-l", tuple(f"transformer.resblocks.{i}" for i in range(8))),
        ("RN-Mi-64.all-m", tuple(f"layer{i}.0" for i in range(1, 5))),
        ("ConvNeXt-Mi-64.all-m", _names("trunk.stages", (1, 1, 1, 1))),
        ("EffNet-Mi-64.all-m", tuple(f"trunk.blocks.{i}.0" for i in range(5))),
    ],
)
def test_mini_zoo(minizoo, member, expected):
    model = open_clip.create_model(f"local-dir:{minizoo / member}")
    assert find_blocks(model.visual) == expected


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("ViT-B-32", tuple(f"transformer.resblocks.{i}" for i in range(12))),
        ("RN50", tuple(f"layer{s}.{j}" for s, n in enumerate((3, 4, 6, 3), 1) for j in range(n))),
        ("coca_base", tuple(f"transformer.resblocks.{i}" for i in range(12))),
    ],
)
def test_open_clip_towers_on_the_meta_device(arch, expected):
    config = open_clip.get_model_config(arch)
    with torch.device("meta"):
        visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"])
    assert find_blocks(visual) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("convnext_base", _names("stages", (3, 3, 27, 3))),
        ("vit_base_patch16_siglip_224", tuple(f"blocks.{i}" for i in range(12))),
        ("eva02_base_patch14_448", tuple(f"blocks.{i}" for i in range(12))),
        ("naflexvit_base_patch16_gap", tuple(f"blocks.{i}" for i in range(12))),
        ("fastvit_mci0", _names("stages", (2, 6, 10, 2))),
        ("swin_tiny_patch4_window7_224", _names("layers", (2, 2, 6, 2))),
        ("maxvit_tiny_rw_224", _names("stages", (2, 2, 5, 2))),
        ("coatnet_0_rw_224", _names("stages", (2, 3, 7, 2))),
        ("resnet18", tuple(f"layer{s}.{j}" for s in range(1, 5) for j in range(2))),
        ("hiera_tiny_224", tuple(f"blocks.{i}" for i in range(12))),
    ],
)
def test_timm_trunks_on_the_meta_device(name, expected):
    with torch.device("meta"):
        trunk = timm.create_model(name)
    assert find_blocks(trunk) == expected


@pytest.mark.parametrize(
    "name",
    [
        "mixer_s32_224",
        "densenet121",
        "mobilenetv3_small_100",
        "poolformer_s12",
        pytest.param(
            "regnetx_002",
            marks=pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="torch.unique knows no meta device"),
        ),
    ],
)
def test_other_timm_trunks_have_blocks_that_exist(name):
    with torch.device("meta"):
        trunk = timm.create_model(name)
    names = find_blocks(trunk)
    assert len(names) > 3
    assert len(set(names)) == len(names)
    order = [n for n, _ in trunk.named_modules()]
    assert [order.index(n) for n in names] == sorted(order.index(n) for n in names)


class _Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(4, 4)
        self.pieces = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)) for _ in range(3))
        self.odd = nn.ModuleDict({"heap": nn.ModuleList(_Piece() for _ in range(5))})


class _Piece(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)


def test_an_unknown_tower_falls_back_to_its_longest_chain():
    assert find_blocks(_Unknown()) == tuple(f"odd.heap.{i}" for i in range(5))


def test_a_tower_without_blocks_is_refused_with_its_children():
    with pytest.raises(ConductanceError, match=r"no chain of blocks.*got Sequential with children \['0', '1'\]"):
        find_blocks(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_first_tensor_of_every_container():
    x, flags = torch.ones(2, 3), torch.ones(2, dtype=torch.bool)
    pair = namedtuple("pair", "flags value")  # noqa: PYI024 - a plain one on purpose
    for output in (x, (x, flags), [flags, x], {"mask": flags, "x": x}, pair(flags, x)):
        assert first_tensor(output) is x
    with pytest.raises(ConductanceError, match="floating tensor"):
        first_tensor((flags, 3))


@pytest.mark.parametrize(
    ("shape", "layout", "expected", "axis"),
    [
        ((6, 8), None, (6, 8), 1),
        ((6, 5, 8), None, (6, 5, 8), 2),
        ((5, 6, 8), None, (6, 5, 8), 2),  # sequence first
        ((6, 8, 4, 4), None, (6, 8, 4, 4), 1),
        ((6, 4, 4, 8), None, (6, 4, 4, 8), 3),  # channels last, seen from the square
        ((6, 4, 4, 4), None, (6, 4, 4, 4), 1),
        ((6, 4, 4, 4), "NHWC", (6, 4, 4, 4), 3),
        ((6, 8, 4, 3), None, (6, 8, 4, 3), 1),
        ((24, 5, 8), None, (6, 4, 5, 8), 3),  # windows folded into the batch
    ],
)
def test_layouts(shape, layout, expected, axis):
    found = detect_layout(shape, 6, layout)
    assert (tuple(to_rows(torch.zeros(shape), 6, found).shape), found.channels) == (expected, axis)


def test_windows_keep_their_image():
    value = torch.arange(6).repeat_interleave(4)[:, None, None].expand(24, 5, 8)
    view = to_rows(value, 6, detect_layout((24, 5, 8), 6))
    assert torch.equal(view[:, 0, 0, 0], torch.arange(6))


def test_rows_that_are_lost_are_refused():
    with pytest.raises(ConductanceError, match=r"6 images apart, but got shape \(5, 8\)"):
        detect_layout((5, 8), 6)
