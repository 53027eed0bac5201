"""An exported folder as one torch module, from pixels to class logits; an ensemble is its members, pooled.

`prediction` and `onnxfile` share it, so that an ONNX file computes what `predict` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from vlmsel_auto.errors import CandidateError
from vlmsel_auto.models import candidates, zoo
from vlmsel_auto.models.ensembles import Ensemble, read_ensemble
from vlmsel_auto.models.exporting import Classifier, read_classifier
from vlmsel_auto.models.loadedmodel import LoadedModel, class_logits
from vlmsel_auto.models.pooling import LEAST_LOG
from vlmsel_auto.records import AnswerLevel


class Tower(nn.Module):
    """One model with its head: pixels of its view to class logits.

    Attributes:
        weight: of its log-probabilities in the pool (`pooling.pool`); 1 where it is alone.
        knows: the weight, or 0 where it has no means of its training images.
        view: geometry of the images that it takes.
    """

    def __init__(self, model: LoadedModel, classifier: Classifier, *, weight: float) -> None:
        super().__init__()
        self.clip = model.model
        self.model, self.classifier, self.weight, self.view = model, classifier, weight, model.candidate.view
        known = classifier.familiar
        self.limit, self.knows = (1.0, 0.0) if known is None else (known.limit, weight)
        means = np.zeros_like(classifier.head[:1]) if known is None else known.means
        for name, values in {"head": classifier.head, "bias": classifier.bias, "means": means}.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32, device=model.device))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (n, K) of uint8 (n, S, S, 3), and how far (n,) the nearest mean is, in limits."""
        head, bias = self.get_buffer("head"), self.get_buffer("bias")
        embeddings = self.model.embed(self.model.normalise(pixels))
        if embeddings.shape[1] != head.shape[1]:
            raise CandidateError(
                f"The head needs embeddings of width {head.shape[1]}: head and weights are of two exports, "
                f"but got width {embeddings.shape[1]}"
            )
        far = (1 - normalize(embeddings, dim=-1) @ self.get_buffer("means").T).amin(dim=1) / self.limit
        return class_logits(embeddings, head=head, bias=bias, scale=self.classifier.scale), far


class ExportedModel(nn.Module):
    """A classifier of K classes.

    Attributes:
        members: at least one.
        classes: (K,).
        views: distinct geometries of the members, in the order in which `forward` takes the images.
        answers: how often it is right above which probability, by held-out images; none: not known.
    """

    def __init__(self, members: Sequence[Tower], *, answers: Sequence[AnswerLevel]) -> None:
        """Raise `CandidateError` where two members have other classes."""
        super().__init__()
        self.members = tuple(members)
        self.towers = nn.ModuleList(members)
        self.classes = members[0].classifier.classes
        for one in members:
            if one.classifier.classes != self.classes:
                raise CandidateError(f"Members of an ensemble need the same classes, but got {one.classifier.classes}")
        self.answers = tuple(answers)
        self.views = tuple(dict.fromkeys(one.view for one in members))

    def forward(self, *pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (n, K) of the same n images in each view, uint8 (n, S, S, 3), and how unlike they are (n,).

        An image above 1 is further from the training images than these are from each other; 0: no member knows.

        Raises:
            CandidateError: weights and head of a member are of two exports.
        """
        judged = [one(pixels[self.views.index(one.view)]) for one in self.members]
        total = sum(one.knows for one in self.members) or 1.0
        parts = [far * (one.knows / total) for one, (_, far) in zip(self.members, judged, strict=True)]
        unlike = torch.stack(parts).sum(dim=0)
        if len(judged) == 1:
            return judged[0][0], unlike
        logs = [log_softmax(each, dim=-1).clamp(min=LEAST_LOG) for each, _ in judged]
        logits = torch.stack([one.weight * each for one, each in zip(self.members, logs, strict=True)]).sum(dim=0)
        return logits, unlike


def load_exported(directory: Path, *, device: str | torch.device = "cpu") -> ExportedModel:
    """Load an exported model, or all members of an exported ensemble, for images alone.

    Raises:
        CandidateError: the folder is no export, or is damaged.
        TrialUnavailable: weights cannot be loaded.
    """
    several = read_ensemble(directory)
    found = several or Ensemble(members=(directory,), weights=(1.0,))
    heads = [read_classifier(folder) for folder in found.members]  # quick; weights are not
    folders = zip(found.members, heads, found.weights, strict=True)
    return ExportedModel(
        [
            Tower(zoo.load(candidates.resolve(folder)[0], device=device, text=False), head, weight=weight)
            for folder, head, weight in folders
        ],
        answers=heads[0].answers if several is None else several.answers,
    )
