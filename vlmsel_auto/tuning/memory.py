"""What a step of training a tower needs, measured before the first: on a processor too little memory kills the process.

A pass over one image and one over two keep tensors for the gradients; what a further image adds, and what all of them
share, follows for any architecture, precision and batch. Towers that can recompute a block's inside while they go back
(gradient checkpointing, Chen et al. 2016, arXiv 1604.06174) keep the inputs of blocks and the inside of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

_FURTHER: Final = 12  # bytes beside a weight's own four: a gradient and AdamW's two moments, float32
_INSIDE: Final = 1 / 12  # of what all blocks keep has the one that is recomputed: base towers have twelve
_SLACK: Final = 1.15  # workspaces, results that no gradient needs, fragments; our own choice


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How a batch passes through a tower; every way has as many images behind a step of the optimiser."""

    batch: int  # images that a step sees at once
    accumulate: int = 1  # steps whose gradients are summed before the weights move
    recomputes: bool = False  # the inside of blocks is computed again instead of kept


def ways(batch: int) -> tuple[Way, ...]:
    """From the quickest to the one that takes least memory: recomputing costs a pass without gradients more."""
    halves = range(1, batch.bit_length())
    smaller = (Way(batch=batch >> n, accumulate=2**n, recomputes=True) for n in halves)
    return (Way(batch=batch), Way(batch=batch, recomputes=True), *smaller)


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Bytes that a pass keeps for the gradients, beside weights."""

    shared: float  # whatever the number of images, such as weights in another precision
    per_image: float

    @staticmethod
    def of(forward: Callable[[Tensor], Tensor], pixels: Tensor, *, module: nn.Module) -> Held:
        """Measure two passes of the ``module`` over the first and the first two of some images."""
        with torch.random.fork_rng():  # dropout must not move what training draws
            one, two = (_kept(forward, pixels[:count], module=module) for count in (1, 2))
        per_image = max(0, two - one)
        return Held(shared=max(0, one - per_image), per_image=per_image)


def recompute(tower: nn.Module, value: bool) -> None:  # noqa: FBT001 - the signature of open_clip's
    """Make a tower compute the inside of its blocks again, or keep it; without effect on towers that cannot."""
    switch = getattr(tower, "set_grad_checkpointing", None)
    if switch is not None:
        switch(value)


def _kept(forward: Callable[[Tensor], Tensor], pixels: Tensor, *, module: nn.Module) -> int:
    weights = {each.untyped_storage().data_ptr() for each in (*module.parameters(), *module.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = forward(pixels)  # noqa: F841 - alive, so that no memory is counted twice
    return sum(found.values())


def bytes_needed(way: Way, *, plain: Held, recomputing: Held, weights: int) -> float:
    """Memory that training takes beyond what is held before it.

    Args:
        way: of the batch.
        plain: of a pass that keeps everything.
        recomputing: of one that computes blocks again.
        weights: numbers that are trained.
    """
    kept = plain.shared + way.batch * plain.per_image
    if way.recomputes:
        kept = min(kept, recomputing.shared + way.batch * (recomputing.per_image + _INSIDE * plain.per_image))
    return _FURTHER * weights + _SLACK * kept
