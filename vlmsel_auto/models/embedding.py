"""Embeddings of a loaded candidate as float64 arrays: one definition for library cells and for new targets."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import FloatArray, IntArray, Task

__all__ = ["as_array", "embed_baseline", "embed_images"]

_BATCH: Final = 64  # images that are embedded at once


def as_array(tensor: torch.Tensor) -> FloatArray:
    """The values of a tensor at float32 precision."""
    return np.asarray(tensor.detach().float().cpu().numpy(), dtype=np.float64)


@torch.no_grad()
def embed_images(model: LoadedModel, task: Task, indices: IntArray) -> FloatArray:
    """Unnormalised embeddings (n, D) of images of the task."""
    parts = []
    for start in range(0, len(indices), _BATCH):
        pixels = task.pixels.read(model.candidate.view, indices[start : start + _BATCH])
        parts.append(as_array(model.embed(model.normalise(pixels))))
    return np.concatenate(parts)


@torch.no_grad()
def embed_baseline(model: LoadedModel) -> FloatArray:
    """Unnormalised embedding (D,) of the baseline image, zeros after normalisation."""
    size = model.candidate.view.size
    only: FloatArray = as_array(model.embed(torch.zeros(1, 3, size, size, device=model.device)))[0]
    return only
