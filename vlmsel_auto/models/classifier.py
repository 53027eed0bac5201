"""The one classifier formula of probe, fine-tuning and prediction.

probabilities = softmax(scale * normalise(embedding) @ head.T + bias)
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["class_logits"]


def class_logits(embeddings: Tensor, *, head: Tensor, bias: Tensor, scale: float | Tensor) -> Tensor:
    """Return class logits (n, K); their softmax over the last axis are the probabilities.

    Args:
        embeddings: (n, D), any norm; a zero row stays zero.
        head: (K, D) class weights, any norm.
        bias: (K,).
        scale: factor on the products, as CLIP's exponentiated ``logit_scale``.
    """
    return scale * torch.nn.functional.normalize(embeddings, dim=-1) @ head.T + bias
