"""A loaded candidate as the rest of the package sees it: embeddings of images and class names, and their classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.records import Candidate

_TEXT_BATCH = 256


class ClipModel(Protocol):
    """What is used of an open_clip model."""

    visual: nn.Module
    logit_scale: Tensor

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - open_clip's signature
        """Embed normalised images (n, 3, S, S) -> (n, D)."""
        ...

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - open_clip's signature
        """Embed tokens (n, L) -> (n, D)."""
        ...


class Tokenizer(Protocol):
    """Texts to tokens (n, L), padded with zeros or the tokenizer's own padding."""

    def __call__(self, texts: list[str], /) -> Tensor:
        """Tokenize ``texts``."""
        ...


def class_logits(embeddings: Tensor, *, head: Tensor, bias: Tensor, scale: float | Tensor) -> Tensor:
    """Return class logits (n, K), scale * normalise(embeddings) @ head.T + bias; their softmax are the probabilities.

    The one classifier of probes, fine-tuning and prediction.

    Args:
        embeddings: (n, D), any norm; a zero row stays zero.
        head: (K, D) class weights, any norm.
        bias: (K,).
        scale: factor on the products, as CLIP's exponentiated ``logit_scale``.
    """
    return scale * nn.functional.normalize(embeddings, dim=-1) @ head.T + bias


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A candidate with its weights, in eval mode, float32, no parameter asking for a gradient."""

    candidate: Candidate
    model: nn.Module
    tokenizer: Tokenizer | None  # None: loaded without text
    mean: tuple[float, float, float]  # of pixels in [0, 1], RGB
    std: tuple[float, float, float]
    logit_scale: float  # factor on cosines, already exponentiated; the bias of SigLIP's is lost in a softmax
    device: torch.device
    model_cfg: Mapping[str, Json]  # open_clip's, with the activation that the weights were trained with
    preprocess_cfg: Mapping[str, Json]
    vocabulary: Path | None  # the candidate's own byte-pair vocabulary

    @property
    def visual(self) -> nn.Module:
        """The visual tower."""
        return self._clip.visual

    @property
    def _clip(self) -> ClipModel:
        return cast("ClipModel", self.model)

    def normalise(self, pixels: NDArray[np.uint8] | Tensor) -> Tensor:
        """Return uint8 images (n, S, S, 3) as float32 (n, 3, S, S) on the device: (x / 255 - mean) / std.

        The operations are those of torchvision's ``ToTensor`` and ``Normalize`` in their order, so the values are
        equal to the bit to what open_clip's own transform gives.
        """
        # a copy: arrays mapped from disk are read-only, which tensors cannot be
        images = pixels.to(self.device) if isinstance(pixels, Tensor) else torch.tensor(pixels, device=self.device)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:  # noqa: PLR2004 - n, S, S, RGB
            raise ValueError(f"Images must be uint8 (n, S, S, 3), but got {images.dtype} {tuple(images.shape)}")
        images = images.permute(0, 3, 1, 2).contiguous().to(torch.float32).div(255)
        mean = torch.tensor(self.mean, device=self.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=self.device).view(1, 3, 1, 1)
        return images.sub_(mean).div_(std)

    def embed(self, images: Tensor) -> Tensor:
        """Return the embeddings (n, D) of normalised images (n, 3, S, S), NOT unit-norm, differentiable."""
        return self._clip.encode_image(images, normalize=False)

    @torch.no_grad()
    def caption_features(self, prompts: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Return unit-norm embeddings (K, T, D) of every class name in every template, float32.

        Args:
            prompts: K class names as they are spoken.
            templates: T texts; each holds one ``{}``.

        Raises:
            ValueError: there are no prompts or templates.
            TrialUnavailable: the model was loaded without its tokenizer.
        """
        if self.tokenizer is None:
            raise TrialUnavailable(f"The model was loaded without text, but got class names for {self.candidate.id!r}")
        if not prompts or not templates:
            raise ValueError(f"At least one prompt and one template are needed, but got {prompts!r} and {templates!r}")
        texts = [template.replace("{}", prompt) for prompt in prompts for template in templates]
        parts = [
            self._clip.encode_text(self.tokenizer(texts[start : start + _TEXT_BATCH]).to(self.device), normalize=True)
            for start in range(0, len(texts), _TEXT_BATCH)
        ]
        return torch.cat(parts).float().reshape(len(prompts), len(templates), -1)

    def text_features(self, prompts: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Return class weights (K, D): the mean over templates of `caption_features`, made unit again."""
        return nn.functional.normalize(self.caption_features(prompts, templates).mean(dim=1), dim=-1)
