"""Ordered visual blocks of a tower, found by the shape of its module tree, and the layout of what they return.

No import of open_clip or timm: a tower is recognised by the names that their classes use.

| tower                                             | blocks                                        |
|---------------------------------------------------|-----------------------------------------------|
| open_clip VisionTransformer (CLIP, CoCa)          | transformer.resblocks.i                       |
| open_clip ModifiedResNet, timm ResNet             | layer1.i ... layer4.i                         |
| timm ViT, EVA, SigLIP, NaFlex, Hiera              | blocks.i                                      |
| timm EfficientNet                                 | blocks.i.j                                    |
| timm ConvNeXt, FastViT, MaxViT, CoAtNet           | stages.i.blocks.j                             |
| timm Swin                                         | layers.i.blocks.j                             |
| anything else                                     | the longest chain of repeated modules         |
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vlmsel_auto.errors import ConductanceError

__all__ = ["Layout", "find_blocks", "first_tensor", "to_rows"]

Layout = str  # "tokens" (rows, T, C), "nchw", "nhwc" or "vector" (rows, C)
_WRAPPERS = ("trunk", "visual", "model", "backbone", "encoder", "vision_model", "transformer")
_CHAINS = ("resblocks", "blocks", "stages", "layers", "features")
_INNER = ("blocks", "layers")
_MIN_LEAVES = 2  # a block holds at least two modules with parameters of their own; one is a mere layer


def find_blocks(visual: nn.Module) -> tuple[str, ...]:
    """Names (as in ``visual.named_modules()``) of the visual blocks in order of execution, shallow to deep.

    Args:
        visual: visual tower; not changed, not run.

    Raises:
        ConductanceError: no chain of blocks could be found.
    """
    names = tuple(_search(visual, ""))
    if not names:
        raise ConductanceError(
            "found no chain of blocks in the visual tower; name its blocks yourself with blocks=(...), but got "
            f"{type(visual).__name__} with children {[name for name, _ in visual.named_children()]}"
        )
    return names


def _search(module: nn.Module, prefix: str) -> list[str]:
    children = dict(module.named_children())
    stages = [f"layer{i}" for i in range(1, 9) if f"layer{i}" in children]
    if len(stages) > 1:  # ResNets
        return [name for stage in stages for name in _flatten(children[stage], f"{prefix}{stage}")]
    for chain in _CHAINS:
        if isinstance(children.get(chain), nn.Sequential | nn.ModuleList):
            names = list(_flatten(children[chain], f"{prefix}{chain}"))
            if names:
                return names
    for wrapper in _WRAPPERS:
        if wrapper in children:
            names = _search(children[wrapper], f"{prefix}{wrapper}.")
            if names:
                return names
    return _generic(module, prefix)


def _flatten(module: nn.Module, name: str) -> Iterator[str]:
    """Blocks of a chain in order: containers and stages with inner blocks are opened, other modules are blocks."""
    if isinstance(module, nn.Sequential | nn.ModuleList):
        parts = list(module.named_children())
        if any(_is_block(child) or _is_container(child) for _, child in parts):
            for key, child in parts:
                yield from _flatten(child, f"{name}.{key}")
            return
    for inner in _INNER:
        chain = getattr(module, inner, None)
        if isinstance(chain, nn.Sequential | nn.ModuleList) and len(chain):
            yield from _flatten(chain, f"{name}.{inner}")
            return
    if _is_block(module):
        yield name


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList) and len(module) > 0


def _is_block(module: nn.Module) -> bool:
    leaves = 0
    for part in module.modules():
        leaves += next(part.parameters(recurse=False), None) is not None
        if leaves >= _MIN_LEAVES:
            return True
    return False


def _generic(module: nn.Module, prefix: str) -> list[str]:
    """Longest chain anywhere below: the container whose flattened list of blocks is longest."""
    best: list[str] = []
    for name, part in module.named_modules():
        if isinstance(part, nn.Sequential | nn.ModuleList):
            names = list(_flatten(part, f"{prefix}{name}"))
            if len(names) > max(1, len(best)):
                best = names
    return best


def first_tensor(output: object) -> Tensor:
    """The block's main output: itself, or the first floating tensor of a tuple, list or mapping."""
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, dict) else output
    if isinstance(parts, tuple | list | type({}.values())):
        for part in parts:
            if isinstance(part, Tensor) and torch.is_floating_point(part):
                return part
    raise ConductanceError(f"a block must return a floating tensor or a tuple that holds one, but got {type(output)}")


def to_rows(value: Tensor, rows: int, layout: str | None = None) -> tuple[Tensor, int]:
    """Bring a block's output into (rows, ...) and say which axis holds the channels.

    Handles windows folded into the batch (rows * windows, ...) and sequence-first (T, rows, C).

    Args:
        value: block output.
        rows: number of images times points that went in.
        layout: "NHWC" or "NCHW" where the tower says so; None: channels come first if the last two axes are equally
            long (square maps), last if the first two are.

    Returns:
        (tensor with ``rows`` first, channel axis counted from the front).

    Raises:
        ConductanceError: the rows cannot be found in the shape.
    """
    shape = tuple(value.shape)
    if shape and shape[0] == rows:
        pass
    elif len(shape) == 3 and shape[1] == rows:  # noqa: PLR2004 - sequence first
        value = value.transpose(0, 1)
    elif shape and rows and shape[0] % rows == 0:
        value = value.reshape(rows, shape[0] // rows, *shape[1:])
    else:
        raise ConductanceError(f"a block's output must keep the {rows} images apart, but got shape {shape}")
    return value, _channel_axis(tuple(value.shape), layout)


def _channel_axis(shape: tuple[int, ...], layout: str | None) -> int:
    last = len(shape) - 1
    if last != 3 or layout == "NHWC":  # noqa: PLR2004 - maps have four axes
        return last  # vectors, tokens, windows of tokens
    channels_last = layout is None and shape[1] == shape[2] and shape[2] != shape[3]
    return last if channels_last else 1
