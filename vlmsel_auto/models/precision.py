"""Embedding and tuning in bfloat16 where the device multiplies that faster, tried on the model before it is trusted.

Processors with bfloat16 units embed several times faster with it, and the embeddings hardly turn; a step of tuning
takes half as long (docs/results/real-models.md). A model is embedded or tuned that way only if a few of the
user's own images come out in the same direction and sooner; otherwise, and for small models, in float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cosine_similarity

from vlmsel_auto.models.loadedmodel import ClipModel, LoadedModel

TRIED: Final = 8  # that both ways are tried on
_LEAST_COSINE: Final = 0.999  # between both embeddings of each image; our own choice
_LEAST_FLOPS: Final = 2e9  # operations of an image: below, reading pixels takes longer than computing


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """How images are embedded, and what an image takes in float32."""

    encode: Callable[[Tensor], Tensor]  # normalised (n, 3, S, S), float32 -> (n, D), float32
    is_bfloat16: bool
    seconds: float | None  # an image in float32, in a batch of eight; None: not timed


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether the device has units for bfloat16: without, it only saves memory and takes longer."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 - no public name
    )


@torch.inference_mode()
def quick_encoder(model: LoadedModel, images: Tensor) -> Encoder:
    """The quickest faithful way to embed, tried on the first eight of some normalised images (n, 3, S, S)."""
    plain = Encoder(encode=model.embed, is_bfloat16=False, seconds=None)
    flops = model.candidate.flops
    if flops is None or flops < _LEAST_FLOPS or not has_bfloat16_units(model.device):
        return plain
    few = images[:TRIED]
    visual = {
        f"model.visual.{name}": value.to(torch.bfloat16) if value.is_floating_point() else value
        for name, value in (*model.visual.named_parameters(), *model.visual.named_buffers())
    }
    encoder = _Encoder(model.model)

    def half(batch: Tensor) -> Tensor:
        made: Tensor = functional_call(encoder, visual, (batch.to(torch.bfloat16),))
        return made.float()

    expected, slow = _timed(model.embed, few)
    try:
        half(few[:1])  # the first pass also chooses kernels
        found, fast = _timed(half, few)
    except (RuntimeError, TypeError):  # an operation that bfloat16 lacks, or one that mixes it with float32
        return Encoder(encode=model.embed, is_bfloat16=False, seconds=slow)
    faithful = bool((cosine_similarity(found, expected, dim=1) >= _LEAST_COSINE).all())
    use = faithful and fast < slow
    return Encoder(encode=half if use else model.embed, is_bfloat16=use, seconds=slow)


def tunes_in_bfloat16(model: LoadedModel, images: Tensor) -> bool:
    """Whether to train a tower in mixed precision, its weights staying in float32.

    GPUs with units for bfloat16 do, older ones would emulate it slowly; a processor where it is the way to embed some
    normalised images (n, 3, S, S).
    """
    if model.device.type == "cuda":
        return has_bfloat16_units(model.device)
    return quick_encoder(model, images).is_bfloat16


class _Encoder(nn.Module):
    """The image tower under a name whose weights `functional_call` can replace."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Embed as `LoadedModel.embed` does."""
        return cast("ClipModel", self.model).encode_image(images, normalize=False)


def _timed(encode: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, float]:
    """Embeddings (n, D) and the seconds an image."""
    began = time.perf_counter()
    made = encode(images).cpu()  # waits for the device
    return made, (time.perf_counter() - began) / len(images)
