"""An exported folder as one torch module, from pixels to class logits; an ensemble is its members, pooled.

`prediction` and `onnxfile` share it, so that an ONNX file computes what `predict` does.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Tower(nn.Module):
    """One model with its head: pixels of its view to class logits.

    Attributes:
        weight: of its log-probabilities in the pool (`pooling.pool`); 1 where it is alone.
        view: geometry of the images that it takes.
    """

    def __init__(self, model: LoadedModel, classifier: Classifier, *, weight: float) -> None:
        super().__init__()
        self.clip = model.model
        self.model, self.classifier, self.weight, self.view = model, classifier, weight, model.candidate.view
        for name in ("head", "bias"):
            values = torch.tensor(getattr(classifier, name), dtype=torch.float32, device=model.device)
            self.register_buffer(name, values)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (n, K) of uint8 (n, S, S, 3)."""
        head, bias = self.get_buffer("head"), self.get_buffer("bias")
        embeddings = self.model.embed(self.model.normalise(pixels))
        if embeddings.shape[1] != head.shape[1]:
            raise CandidateError(
                f"The head needs embeddings of width {head.shape[1]}: head and weights are of two exports, "
                f"but got width {embeddings.shape[1]}"
            )
        return class_logits(embeddings, head=head, bias=bias, scale=self.classifier.scale)


class ExportedModel(nn.Module):
    """A classifier of K classes.

    Attributes:
        members: at least one.
        classes: (K,).
        views: distinct geometries of the members, in the order in which `forward` takes the images.
    """

    def __init__(self, members: Sequence[Tower]) -> None:
        """Raise `CandidateError` where two members have other classes."""
        super().__init__()
        self.members = tuple(members)
        self.towers = nn.ModuleList(members)
        self.classes = members[0].classifier.classes
        for one in members:
            if one.classifier.classes != self.classes:
                raise CandidateError(f"Members of an ensemble need the same classes, but got {one.classifier.classes}")
        self.views = tuple(dict.fromkeys(one.view for one in members))

    def forward(self, *pixels: Tensor) -> Tensor:
        """Return logits (n, K) of the same n images in each view, uint8 (n, S, S, 3), RGB.

        Raises:
            CandidateError: weights and head of a member are of two exports.
        """
        logits: list[Tensor] = [one(pixels[self.views.index(one.view)]) for one in self.members]
        if len(logits) == 1:
            return logits[0]
        logs = [log_softmax(each, dim=-1).clamp(min=LEAST_LOG) for each in logits]
        return torch.stack([one.weight * each for one, each in zip(self.members, logs, strict=True)]).sum(dim=0)


def load_exported(directory: Path, *, device: str | torch.device = "cpu") -> ExportedModel:
    """Load an exported model, or all members of an exported ensemble, for images alone.

    Raises:
        CandidateError: the folder is no export, or is damaged.
        TrialUnavailable: weights cannot be loaded.
    """
    found = read_ensemble(directory) or Ensemble(members=(directory,), weights=(1.0,))
    heads = [read_classifier(folder) for folder in found.members]  # quick; weights are not
    folders = zip(found.members, heads, found.weights, strict=True)
    return ExportedModel(
        [
            Tower(zoo.load(candidates.resolve(folder)[0], device=device, text=False), head, weight=weight)
            for folder, head, weight in folders
        ]
    )
