import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vlmsel_auto.tuning.memory import Held, Way, bytes_needed, recompute, ways


class Tower(nn.Module):
    """Three blocks of two layers each, 8 numbers wide."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(3))
        self.recomputes = False

    def set_grad_checkpointing(self, enable: bool) -> None:  # noqa: FBT001 - open_clip's signature
        self.recomputes = enable

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recomputes else block(x)
        return x


def test_ways_go_from_the_quickest_to_one_image_at_a_time() -> None:
    found = ways(32)
    assert found[:3] == (Way(batch=32), Way(batch=32, recomputes=True), Way(batch=16, accumulate=2, recomputes=True))
    assert found[-1] == Way(batch=1, accumulate=32, recomputes=True)
    assert {way.batch * way.accumulate for way in found} == {32}


def test_a_pass_keeps_what_its_gradients_need() -> None:
    tower, images = Tower(), torch.randn(2, 8)
    plain = Held.of(tower, images, module=tower)
    recompute(tower, True)
    again = Held.of(tower, images, module=tower)
    # an input and a tanh a block; the first block's input is the images, whose two rows share memory
    assert plain.per_image == pytest.approx(5 * 8 * 4)
    assert again.per_image == pytest.approx(2 * 8 * 4)


def test_weights_and_images_are_what_training_takes() -> None:
    plain, light = Held(shared=100.0, per_image=1200.0), Held(shared=0.0, per_image=20.0)
    of = [bytes_needed(way, plain=plain, recomputing=light, weights=1000) for way in ways(8)]
    assert of[0] == pytest.approx(12 * 1000 + 1.15 * (100 + 8 * 1200))
    assert of[1] == pytest.approx(12 * 1000 + 1.15 * 8 * (20 + 100))
    assert of == sorted(of, reverse=True)


def test_a_tower_that_cannot_recompute_is_left_alone() -> None:
    recompute(nn.Linear(2, 2), True)
