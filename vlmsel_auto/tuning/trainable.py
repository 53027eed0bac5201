"""Which weights of a visual tower are trained, and at which share of the learning rate.

- the tower: all of them;
- low rank: W + B A in place of every matrix W of the blocks' attention (LoRA, Hu et al., ICLR 2022; as in CLIP-LoRA,
  Zanella and Ben Ayed 2024); B begins at zero, and `merge` writes the sum into W;
- last blocks: a quarter of the blocks, at least two, and what follows them, at rates that fall with the distance from
  the last (layer-wise decay, as in BEiT, Bao et al., ICLR 2022);
- projection: what follows the last block, pulled to its start by the loss (ProLIP, Fahes et al. 2024, eq. 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vlmsel_auto.conductance.blocks import find_blocks
from vlmsel_auto.planning.method import Part

_RANK: Final = 4  # of each of query, key, value and output
_QUARTER: Final = 4
_FEWEST: Final = 2  # blocks
_DECAY: Final = 0.7  # of the rate, a block


class LowRank(nn.Module):
    """A matrix (R, C) plus B A, of a rank that counts for each square that it is made of."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, columns = weight.shape
        rank = min(_RANK * max(1, rows // columns), rows, columns)
        self.down = nn.Parameter(torch.empty(rank, columns, device=weight.device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))
        nn.init.normal_(self.down, std=columns**-0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """(R, C) -> (R, C)."""
        return weight + self.up @ self.down


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainable:
    """Weights of a tower."""

    shares: Mapping[str, float]  # of the learning rate, by name as in ``named_parameters``
    starts: Mapping[str, Tensor]  # where those that the loss pulls began; empty: none is pulled
    pull: float

    def penalty(self, tower: nn.Module) -> Tensor | float:
        """What the loss adds for moves: ``pull`` times the sum of their squares."""
        moved = (tower.get_parameter(name) - start for name, start in self.starts.items())
        return self.pull * sum((each.square().sum() for each in moved), 0.0)


def choose(tower: nn.Module, part: Part, *, run: Callable[[], Tensor], shots: float = 1.0) -> Trainable:
    """Make a part of the weights take gradients, and no others.

    A tower whose blocks have no attention trains its last blocks in the place of low rank.

    Args:
        tower: in its pretrained state; `Part.LOW_RANK` changes its modules.
        part: what is trained.
        run: passes an image through the tower.
        shots: training images a class; the more, the weaker the pull (ProLIP: 1 / shots).

    Raises:
        ConductanceError: it has no chain of blocks.
    """
    tower.requires_grad_(True)
    starts: dict[str, Tensor] = {}
    match part:
        case Part.TOWER:
            shares = {name: 1.0 for name, _ in tower.named_parameters()}
        case Part.LOW_RANK:
            matrices = _attention(tower)
            if not matrices:
                return choose(tower, Part.LAST_BLOCKS, run=run, shots=shots)
            for module, name in matrices:
                parametrize.register_parametrization(module, name, LowRank(getattr(module, name)))
            shares = {name: 1.0 for name, _ in tower.named_parameters() if name.endswith((".0.down", ".0.up"))}
        case Part.LAST_BLOCKS:
            shares = _last_blocks(tower, run)
        case Part.PROJECTION:
            shares = dict.fromkeys(_after(tower, find_blocks(tower)[-1], run), 1.0)
            starts = {name: tower.get_parameter(name).detach().clone() for name in shares}
    for name, weight in tower.named_parameters():
        weight.requires_grad_(name in shares)
    return Trainable(shares=shares, starts=starts, pull=1 / shots)


def merge(tower: nn.Module) -> None:
    """Write what low rank adds into the matrices; the tower is then one of its architecture again."""
    for module in [each for each in tower.modules() if parametrize.is_parametrized(each)]:
        for name in list(module.parametrizations):  # type: ignore[arg-type] # a ModuleDict there
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _attention(tower: nn.Module) -> list[tuple[nn.Module, str]]:
    """Matrices of the blocks' attention, as module and name."""
    found: list[tuple[nn.Module, str]] = []
    for name, module in tower.named_modules():
        if not {"attn", "attention"}.intersection(name.split(".")):
            continue
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            found.append((module, "in_proj_weight"))
        elif isinstance(module, nn.Linear):
            found.append((module, "weight"))
    return found


def _last_blocks(tower: nn.Module, run: Callable[[], Tensor]) -> dict[str, float]:
    blocks = find_blocks(tower)
    count = max(_FEWEST, len(blocks) // _QUARTER)
    if count >= len(blocks):
        return {name: 1.0 for name, _ in tower.named_parameters()}
    distance = {name: place for place, name in enumerate(reversed(blocks[-count:]))}

    def share(name: str) -> float:
        return next((_DECAY**place for block, place in distance.items() if name.startswith(f"{block}.")), 1.0)

    return {name: share(name) for name in _after(tower, blocks[-count - 1], run)}


def _after(tower: nn.Module, block: str, run: Callable[[], Tensor]) -> list[str]:
    """Names of the weights that act on what a block returns: those that get a gradient where it gets none."""
    hook = tower.get_submodule(block).register_forward_hook(lambda *_: torch.set_grad_enabled(True) and None)
    try:
        with torch.no_grad():
            found = run()
    finally:
        hook.remove()
    weights = dict(tower.named_parameters())
    gradients = torch.autograd.grad(found.float().sum(), list(weights.values()), allow_unused=True)
    return [name for name, gradient in zip(weights, gradients, strict=True) if gradient is not None]
