"""Ordered visual blocks of a tower, found by the shape of its module tree, and the layout of what they return.

No import of open_clip or timm: a tower is recognised by the names that their classes use.

| tower                                             | blocks                                        |
|---------------------------------------------------|-----------------------------------------------|
| open_clip VisionTransformer (CLIP, CoCa)          | transformer.resblocks.i                       |
| open_clip ModifiedResNet, timm ResNet, RegNet     | layer1.i ... layer4.i, s1.b1 ... s4.bi        |
| timm ViT, EVA, SigLIP, NaFlex, Hiera              | blocks.i                                      |
| timm EfficientNet                                 | blocks.i.j                                    |
| timm ConvNeXt, FastViT, MaxViT, CoAtNet           | stages.i.blocks.j                             |
| timm Swin                                         | layers.i.blocks.j                             |
| anything else                                     | the longest chain of repeated modules         |
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor, nn

from vlmsel_auto.errors import ConductanceError

_WRAPPERS = ("trunk", "visual", "model", "backbone", "encoder", "vision_model", "transformer")
_CHAINS = ("resblocks", "blocks", "stages", "layers", "features")
_INNER = ("blocks", "layers")
_CONTAINERS = nn.Sequential | nn.ModuleList
_MIN_LEAVES = 2  # a block holds at least two modules with parameters of their own; one is a mere layer


def find_blocks(visual: nn.Module) -> tuple[str, ...]:
    """Names (as in ``visual.named_modules()``) of the visual blocks in order of execution; the tower is not run.

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
    for chain in _CHAINS:
        part = children.get(chain)
        if isinstance(part, _CONTAINERS) and (names := list(_flatten(part, f"{prefix}{chain}"))):
            return names
    if names := _numbered_stages(module, prefix):
        return names
    for wrapper in _WRAPPERS:
        if wrapper in children and (names := _search(children[wrapper], f"{prefix}{wrapper}.")):
            return names
    return _longest_chain(module, prefix)


def _numbered_stages(module: nn.Module, prefix: str) -> list[str]:
    """Blocks of stages that are told apart by a number (layer1.0 of ResNets, s1.b1 of RegNets): the longest series."""
    series: dict[str, list[str]] = defaultdict(list)
    for name, child in module.named_children():
        match = re.fullmatch(r"(\D+)\d+", name)
        if match is None:
            continue
        inner = [key for key, _ in child.named_children() if re.fullmatch(r"(b|block)\d+", key)]
        if inner:
            series[match[1]] += [f"{prefix}{name}.{key}" for key in inner]
        elif _is_container(child):
            series[match[1]] += _flatten(child, f"{prefix}{name}")
    return max(series.values(), key=len, default=[])


def _flatten(module: nn.Module, name: str) -> Iterator[str]:
    """Blocks of a chain in order: containers and stages with inner blocks are opened, other modules are blocks."""
    if isinstance(module, _CONTAINERS):
        parts = list(module.named_children())
        if any(_is_block(child) or _is_container(child) for _, child in parts):
            for key, child in parts:
                yield from _flatten(child, f"{name}.{key}")
            return
    for inner in _INNER:
        chain = getattr(module, inner, None)
        if isinstance(chain, _CONTAINERS) and len(chain):
            yield from _flatten(chain, f"{name}.{inner}")
            return
    if _is_block(module):
        yield name


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, _CONTAINERS) and len(module) > 0


def _is_block(module: nn.Module) -> bool:
    return sum(next(part.parameters(recurse=False), None) is not None for part in module.modules()) >= _MIN_LEAVES


def _longest_chain(module: nn.Module, prefix: str) -> list[str]:
    """Blocks of the container anywhere below that has most; none where no container has two."""
    containers = ((name, part) for name, part in module.named_modules() if isinstance(part, _CONTAINERS))
    best = max((list(_flatten(part, f"{prefix}{name}")) for name, part in containers), key=len, default=[])
    return best if len(best) > 1 else []


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


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a block's output keeps images and channels.

    Attributes:
        rows: "first" (rows, ...), "second" (T, rows, C), or "windows" folded into the batch (rows * windows, ...).
        channels: axis of the channels in what ``to_rows`` returns.
        turned: the map is (rows, C, H, W) but lies in memory with its channels last; ``to_rows`` turns them last.
    """

    rows: Literal["first", "second", "windows"]
    channels: int
    turned: bool = False


def detect_layout(shape: tuple[int, ...], rows: int, declared: str | None = None) -> Layout:
    """Layout of a block output of ``shape`` for ``rows`` images times points.

    ``declared`` is "NHWC" or "NCHW" where the tower says so; else channels are taken to come last in maps whose first
    two sides are equal and differ from the third.

    Raises:
        ConductanceError: the rows cannot be found in the shape.
    """
    if shape and shape[0] == rows:
        return Layout(rows="first", channels=_channel_axis(shape, declared))
    if len(shape) == 3 and shape[1] == rows:  # noqa: PLR2004 - sequence first
        return Layout(rows="second", channels=2)
    if len(shape) > 1 and rows and shape[0] % rows == 0:
        return Layout(rows="windows", channels=1 + _channel_axis(shape, declared))
    raise ConductanceError(f"a block's output must keep the {rows} images apart, but got shape {shape}")


def to_rows(value: Tensor, rows: int, layout: Layout) -> Tensor:
    """Bring a block's output, or its gradient, into (rows, ...)."""
    match layout.rows:
        case "first":
            return value.permute(0, 2, 3, 1) if layout.turned else value
        case "second":
            return value.transpose(0, 1)
        case "windows":
            return value.reshape(rows, value.shape[0] // rows, *value.shape[1:])
        case _:
            assert_never(layout.rows)


def turned(value: Tensor, layout: Layout) -> Layout:
    """``layout`` of ``value``, turned where its memory has the channels last: flattening then copies nothing."""
    if layout != Layout(rows="first", channels=1) or value.ndim != 4 or value.is_contiguous():  # noqa: PLR2004 - maps
        return layout
    return Layout(rows="first", channels=3, turned=True)


def _channel_axis(shape: tuple[int, ...], declared: str | None) -> int:
    last = len(shape) - 1
    if last != 3 or declared == "NHWC":  # noqa: PLR2004 - maps have four axes
        return last  # vectors, tokens, windows of tokens
    channels_last = declared is None and shape[1] == shape[2] and shape[2] != shape[3]
    return last if channels_last else 1
