"""Scalars F whose path integral conductance splits over neurons: functions of the unnormalised visual embedding.

e: (rows, D) unnormalised embedding; t: (K, D) unit text features (class weights); s: logit scale.

| name    | F                                                                 |
|---------|-------------------------------------------------------------------|
| margin  | s cos(e, t_c) - mean over k of s cos(e, t_k), c the predicted class |
| norm    | Euclidean length of e (no class names needed)                     |

The predicted class c is fixed at the end of the path (the image itself) for the whole path: F stays one function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from vlmsel_auto.errors import ConductanceError

ScalarName = Literal["margin", "norm"]
_TINY = 1e-12


class Scalar(Protocol):
    """A scalar F of the embedding. Implementations are stateless and row-wise."""

    @property
    def name(self) -> str:
        """Short name for messages."""
        ...

    def target(self, embedding: Tensor, /) -> Tensor:
        """Class that F speaks of, from the embedding (n, D) of the images themselves: (n,) int64."""
        ...

    def value(self, embedding: Tensor, target: Tensor, /) -> Tensor:
        """F of each row: embedding (rows, D), target (rows,) -> (rows,)."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Margin:
    """Scaled cosine of the predicted class minus the mean over classes."""

    text_features: Tensor
    logit_scale: float
    name: str = "margin"

    def target(self, embedding: Tensor, /) -> Tensor:
        """Predicted class."""
        unit = functional.normalize(embedding, dim=-1)
        return (unit @ self.text_features.to(unit).T).argmax(dim=-1)

    def value(self, embedding: Tensor, target: Tensor, /) -> Tensor:
        """F of each row."""
        text = self.text_features.to(embedding)
        direction = text[target] - text.mean(dim=0)
        unit = functional.normalize(embedding, dim=-1)
        cosine: Tensor = (unit * direction).sum(dim=-1)
        return cosine * self.logit_scale


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Euclidean length of the unnormalised embedding."""

    name: str = "norm"

    def target(self, embedding: Tensor, /) -> Tensor:
        """No class: -1."""
        return torch.full((len(embedding),), -1, dtype=torch.int64, device=embedding.device)

    def value(self, embedding: Tensor, target: Tensor, /) -> Tensor:  # noqa: ARG002 - Scalar's signature
        """F of each row."""
        norm: Tensor = torch.linalg.vector_norm(embedding, dim=-1)
        return norm


def make_scalar(name: ScalarName, *, text_features: Tensor | None = None, logit_scale: float = 1.0) -> Scalar:
    """Build the scalar ``name`` and refuse what is constant by construction.

    Args:
        name: see the module's table.
        text_features: (K, D) unit-norm class weights; "margin" needs them.
        logit_scale: factor of the cosine, > 0.

    Raises:
        ConductanceError: text features missing, not finite, not of unit length; one class or equal classes only, of
            which the margin is constant.
    """
    if name == "norm":
        return Norm()
    if text_features is None:
        raise ConductanceError(f'scalar {name!r} needs text_features (K, D); without class names use "norm", got None')
    if not 0 < logit_scale < float("inf"):
        raise ConductanceError(f"logit_scale must be positive and finite, or F is constant, but got {logit_scale!r}")
    return Margin(text_features=_checked_text(text_features), logit_scale=logit_scale)


def _checked_text(text: Tensor) -> Tensor:
    if text.ndim != 2 or 0 in text.shape:  # noqa: PLR2004 - (K, D)
        raise ConductanceError(f"text_features must be (classes, width), but got shape {tuple(text.shape)}")
    if not bool(torch.isfinite(text).all()):
        raise ConductanceError("text_features must be finite, but got NaN or infinite values")
    lengths = torch.linalg.vector_norm(text.double(), dim=-1)
    if bool(((lengths - 1).abs() > 1e-2).any()):  # noqa: PLR2004 - room for bfloat16 features
        raise ConductanceError(
            f"text_features must have unit length, but got {float(lengths.min()):.4g} to {float(lengths.max()):.4g}"
        )
    spread = float((text - text.mean(dim=0)).abs().max())
    if len(text) < 2 or spread < _TINY:  # noqa: PLR2004 - two classes
        raise ConductanceError(
            "the margin is constant with fewer than two different classes; name at least two, but got "
            f"{len(text)} with spread {spread:.1g}"
        )
    return text.detach()
