from collections.abc import Iterable

import pytest
import torch
from torch import nn

from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.planning.method import Part
from vlmsel_auto.tuning.trainable import LowRank, Trainable, choose, merge

KINDS = ("ViT-Deep-8-48.all-m", "RN-Mi-64.all-m", "ConvNeXt-Mi-64.all-m", "EffNet-Mi-64.all-m")


def model_of(name: str) -> tuple[LoadedModel, torch.Tensor]:
    (candidate,) = resolve(name)
    model = zoo.load(candidate)
    pixels = torch.randint(0, 256, (2, candidate.view.size, candidate.view.size, 3), dtype=torch.uint8)
    return model, model.normalise(pixels)


def chosen(model: LoadedModel, images: torch.Tensor, part: Part, *, shots: float = 1.0) -> Trainable:
    return choose(model.visual, part, run=lambda: model.embed(images[:1]), shots=shots)


def blocks_of(names: Iterable[str]) -> set[int]:
    return {int(name.split(".")[2]) for name in names if name.startswith("transformer.resblocks.")}


@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize("name", KINDS)
def test_what_is_chosen_and_nothing_else_moves_and_is_merged(name: str, part: Part) -> None:
    torch.manual_seed(0)
    model, images = model_of(name)
    start = {key: value.clone() for key, value in model.visual.state_dict().items()}
    before = model.embed(images)
    trainable = chosen(model, images, part)
    asked = {key for key, weight in model.visual.named_parameters() if weight.requires_grad}
    assert asked == set(trainable.shares)
    assert torch.allclose(model.embed(images), before, atol=1e-5)  # nothing is changed yet
    model.embed(images).square().sum().backward()
    for key, weight in model.visual.named_parameters():
        assert (weight.grad is not None) == (key in asked)
    with torch.no_grad():
        for key in asked:
            weight = model.visual.get_parameter(key)
            weight.add_(0.05 * torch.randn_like(weight))
    after = model.embed(images)
    assert not torch.allclose(after, before, atol=1e-3)
    merge(model.visual)
    assert torch.allclose(model.embed(images), after, atol=1e-4)
    assert set(model.visual.state_dict()) == set(start)
    fresh, _ = model_of(name)
    fresh.visual.load_state_dict(model.visual.state_dict())
    assert torch.allclose(fresh.embed(images), after, atol=1e-4)


def test_each_part_is_less_than_the_one_before() -> None:
    sizes = []
    for part in Part:
        model, images = model_of(KINDS[0])
        chosen(model, images, part)
        sizes.append(sum(each.numel() for each in model.visual.parameters() if each.requires_grad))
    whole, low_rank, last_blocks, projection = sizes
    assert projection < low_rank < last_blocks < whole / 3
    assert projection < whole / 50


def test_rates_fall_from_the_last_block_backwards() -> None:
    model, images = model_of(KINDS[0])  # twelve blocks
    shares = chosen(model, images, Part.LAST_BLOCKS).shares
    assert blocks_of(shares) == {9, 10, 11}
    assert [shares[f"transformer.resblocks.{place}.ln_1.weight"] for place in (11, 10, 9)] == [1.0, 0.7, 0.7**2]
    assert shares["proj"] == 1.0
    assert not {"class_embedding", "positional_embedding", "conv1.weight"} & set(shares)


def test_blocks_without_attention_train_the_last_ones() -> None:
    model, images = model_of("ConvNeXt-Mi-64.all-m")
    assert chosen(model, images, Part.LOW_RANK).shares == chosen(model, images, Part.LAST_BLOCKS).shares


def test_the_projection_is_pulled_to_its_start() -> None:
    model, images = model_of(KINDS[0])
    trainable = chosen(model, images, Part.PROJECTION, shots=4.0)
    assert set(trainable.shares) == {"proj", "ln_post.weight", "ln_post.bias"}
    assert trainable.penalty(model.visual).item() == 0.0
    with torch.no_grad():
        model.visual.get_parameter("ln_post.bias").add_(2.0)
    count = model.visual.get_parameter("ln_post.bias").numel()
    assert trainable.penalty(model.visual).item() == pytest.approx(4.0 * count / 4.0)
    assert chosen(model, images, Part.TOWER).penalty(model.visual) == 0.0


def test_low_rank_is_of_low_rank() -> None:
    weight = nn.Parameter(torch.randn(96, 32))
    added = LowRank(weight)
    assert torch.equal(added(weight), weight)
    nn.init.normal_(added.up)
    assert int(torch.linalg.matrix_rank(added(weight).detach() - weight.detach(), tol=1e-4)) == 12  # four of each third
