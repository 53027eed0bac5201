"""One forward and one backward pass that show every block's output h and gradient dF/dh, block by block.

The graph starts at the output of the shallowest block (nothing before it is differentiated) and holds no parameter
gradients. Gradients are handed out while the backward pass runs and are not kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from vlmsel_auto.conductance.blocks import first_tensor
from vlmsel_auto.errors import ConductanceError

Consume = Callable[[int, Tensor, Tensor], None]  # (block, h (rows, ...), dF/dh like h), deepest block first
Value = Callable[[Tensor], Tensor]  # embedding (rows, D) -> F (rows,)


def widened(tensor: Tensor) -> Tensor:
    """Half precision as float32, else ``tensor`` itself."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class Sweep:
    """Runs a tower with hooks on its blocks. Use as a context manager: hooks and frozen parameters are undone at exit.

    Args:
        visual: the tower, in eval mode.
        blocks: module names in order of execution.
    """

    _leaf: Tensor | None  # output of the shallowest block, where the graph begins
    _hooked: dict[int, Tensor]  # outputs of the blocks with their graph
    _outputs: dict[int, Tensor]  # the same without
    _versions: dict[int, int]

    def __init__(self, visual: nn.Module, blocks: Sequence[str]) -> None:
        self.visual = visual
        self.blocks = tuple(blocks)
        self._modules = [visual.get_submodule(name) for name in self.blocks]
        self._undo = ExitStack()
        self._copy = False  # blocks whose output a later module changes in place need a copy
        self._forget()

    def __enter__(self) -> Self:
        for parameter in self.visual.parameters():
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                self._undo.callback(parameter.requires_grad_)
        for index, module in enumerate(self._modules):
            handle = module.register_forward_hook(partial(self._record, index))
            self._undo.callback(handle.remove)
        return self

    def __exit__(self, *exc: object) -> None:
        self._forget()
        self._undo.close()

    def run(self, rows: Tensor, value: Value, consume: Consume) -> Tensor:
        """Sweep ``rows`` (R, C, H, W): F (R,), detached; ``value`` makes it of the embedding."""
        result = self.forward(rows, value)
        seen: set[int] = set()

        def deliver(index: int, gradient: Tensor) -> None:
            seen.add(index)
            consume(index, self._outputs.pop(index), gradient.detach())

        leaf = self._leaf
        assert leaf is not None  # noqa: S101 - forward() leaves one behind
        first = min(self._outputs)
        for index, output in self._hooked.items():
            if index != first:
                output.register_hook(partial(deliver, index))  # type: ignore[no-untyped-call] # torch leaves it untyped
        self._hooked.clear()
        (gradient,) = torch.autograd.grad([result], [leaf], [torch.ones_like(result)], allow_unused=True)
        if gradient is not None:
            deliver(first, gradient)
        self._forget()
        if len(seen) < len(self.blocks):
            idle = [name for index, name in enumerate(self.blocks) if index not in seen]
            raise ConductanceError(f"these blocks do not reach the scalar; leave them out of blocks=, but got {idle}")
        return result.detach()

    def forward(self, rows: Tensor, value: Value) -> Tensor:
        """Forward half of ``run``: F (R,) with its graph; the blocks' outputs stay recorded."""
        self._forget()
        with torch.enable_grad():
            embedding = first_tensor(self.visual(rows))
        if len(self._outputs) < len(self.blocks):
            idle = [name for index, name in enumerate(self.blocks) if index not in self._outputs]
            raise ConductanceError(f"these blocks were not run by the tower; leave them out, but got {idle}")
        if not self._copy and any(t._version != self._versions[i] for i, t in self._outputs.items()):  # noqa: SLF001
            self._copy = True  # a later module wrote into a block's output: keep copies from now on
            return self.forward(rows, value)
        with torch.enable_grad():
            result = value(widened(embedding))
        if not result.requires_grad:
            raise ConductanceError(
                "the scalar does not depend on any block (is the tower wrapped in no_grad or a blackbox?), but got a "
                f"value without gradient from {type(self.visual).__name__}"
            )
        return result

    def outputs(self, rows: Tensor, value: Value) -> list[Tensor]:
        """Every block's output, from a forward pass over ``rows``."""
        self.forward(rows, value)
        found = [self._outputs[index] for index in range(len(self.blocks))]
        self._forget()
        return found

    def _record(self, index: int, module: nn.Module, args: object, output: object) -> object:  # noqa: ARG002 - hook
        tensor = first_tensor(output)
        if index in self._outputs:
            raise ConductanceError(
                f"a block must run once per pass, but {self.blocks[index]!r} was run again; leave it out of blocks="
            )
        if self._leaf is None:  # nothing before the shallowest block is differentiated
            tensor = self._leaf = tensor.detach().requires_grad_()
        passed_on = tensor.clone() if self._copy else tensor
        self._hooked[index] = tensor
        self._outputs[index] = tensor.detach()
        self._versions[index] = self._outputs[index]._version  # noqa: SLF001 - the only way to notice in-place writes
        return _replace_first(output, passed_on)

    def _forget(self) -> None:
        self._leaf = None
        self._hooked, self._outputs, self._versions = {}, {}, {}


def _replace_first(output: object, tensor: Tensor) -> object:
    """``output`` with its first floating tensor replaced by ``tensor``."""
    if isinstance(output, Tensor):
        return tensor
    old = first_tensor(output)
    if isinstance(output, dict):
        return type(output)({key: tensor if part is old else part for key, part in output.items()})
    if isinstance(output, list | tuple):
        parts = [tensor if part is old else part for part in output]
        named = hasattr(output, "_fields")
        return type(output)(*parts) if named else type(output)(parts)
    raise ConductanceError(f"cannot hand on a block output of this type, but got {type(output)}")
