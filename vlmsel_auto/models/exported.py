"""An exported folder as one torch module, from pixels to class logits; an ensemble is its members, pooled.

`prediction` and `onnxfile` share it, so that an ONNX file computes what `predict` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from vlmsel_auto.errors import CandidateError
from vlmsel_auto.models import candidates, zoo
from vlmsel_auto.models.ensembles import Ensemble, read_ensemble
from vlmsel_auto.models.exporting import Classifier, read_classifier
from vlmsel_auto.models.loadedmodel import LoadedModel, class_logits
from vlmsel_auto.models.pooling import LEAST_LOG
from vlmsel_auto.records import ImageView


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """One tower with its head."""

    model: LoadedModel
    classifier: Classifier
    weight: float  # of its log-probabilities in the pool (`pooling.pool`); 1 where it is alone

    @property
    def view(self) -> ImageView:
        """Geometry of the images that it takes."""
        return self.model.candidate.view


class ExportedModel(nn.Module):
    """A classifier of K classes.

    Attributes:
        members: at least one.
        classes: (K,).
        views: distinct geometries of the members, in the order in which `forward` takes the images.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        """Raise `CandidateError` where two members have other classes."""
        super().__init__()
        self.members = tuple(members)
        self.classes = members[0].classifier.classes
        for one in members:
            if one.classifier.classes != self.classes:
                raise CandidateError(f"Members of an ensemble need the same classes, but got {one.classifier.classes}")
        self.views = tuple(dict.fromkeys(one.view for one in members))
        self.towers = nn.ModuleList([_Tower(one) for one in members])

    def forward(self, *pixels: Tensor) -> Tensor:
        """Return logits (n, K) of the same n images in each view, uint8 (n, S, S, 3), RGB.

        Raises:
            CandidateError: weights and head of a member are of two exports.
        """
        logits: list[Tensor] = [
            tower(pixels[self.views.index(one.view)]) for tower, one in zip(self.towers, self.members, strict=True)
        ]
        if len(logits) == 1:
            return logits[0]
        logs = [log_softmax(each, dim=-1).clamp(min=LEAST_LOG) for each in logits]
        return torch.stack([one.weight * each for one, each in zip(self.members, logs, strict=True)]).sum(dim=0)


class _Tower(nn.Module):
    """A member as a module: pixels of its view to logits."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.clip = member.model.model
        self._member = member
        head, device = member.classifier, member.model.device
        self.register_buffer("head", torch.tensor(head.head, dtype=torch.float32, device=device))
        self.register_buffer("bias", torch.tensor(head.bias, dtype=torch.float32, device=device))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (n, K) of uint8 (n, S, S, 3)."""
        model, head, bias = self._member.model, self.get_buffer("head"), self.get_buffer("bias")
        embeddings = model.embed(model.normalise(pixels))
        if embeddings.shape[1] != head.shape[1]:
            raise CandidateError(
                f"The head needs embeddings of width {head.shape[1]}: head and weights are of two exports, "
                f"but got width {embeddings.shape[1]}"
            )
        return class_logits(embeddings, head=head, bias=bias, scale=self._member.classifier.scale)


def load_exported(directory: Path, *, device: str | torch.device = "cpu") -> ExportedModel:
    """Load an exported model, or all members of an exported ensemble, for images alone.

    Raises:
        CandidateError: the folder is no export, or is damaged.
        TrialUnavailable: weights cannot be loaded.
    """
    found = read_ensemble(directory) or Ensemble(members=(directory,), weights=(1.0,))
    heads = [read_classifier(folder) for folder in found.members]  # quick; weights are not
    return ExportedModel(
        [
            Member(
                model=zoo.load(candidates.resolve(folder)[0], device=device, text=False), classifier=head, weight=weight
            )
            for folder, head, weight in zip(found.members, heads, found.weights, strict=True)
        ]
    )
