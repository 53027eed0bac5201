"""What one candidate shows on one task: arrays only.

Three records hold figures of candidates, one made of the other: `conductance.layer.Conductance` (what the engine says
of every image), `Measurement` (a candidate on a task, means over images) and `library.records.Cell` (a row of figures
for later rankings; a `Library` is a table of them).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vlmsel_auto.ranking.signals import Embedded
from vlmsel_auto.records import FloatArray, IntArray


def _nothing(*shape: int) -> FloatArray:
    return np.full(shape, np.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """One candidate on one task. Whatever is not known stays empty; then the ranking does without it.

    Rows of ``features`` are the task's images, the same images in the same order for every candidate; when labels
    are given to the ranking they belong to these rows. ``others`` are further images, likewise, without labels.
    """

    candidate: str
    features: FloatArray = field(default_factory=lambda: _nothing(0, 0))  # (n, D) visual embeddings, any scale
    others: FloatArray = field(default_factory=lambda: _nothing(0, 0))  # (u, D) visual embeddings of further images
    text_features: FloatArray = field(default_factory=lambda: _nothing(0, 0))  # (K, D) class weights; K 0: no text
    baseline: FloatArray = field(default_factory=lambda: _nothing(0))  # (D,) embedding of the baseline image; (): 0
    total: float = np.nan  # mean over images of F(x) - F(x0), F = margin, or norm without class weights
    activity: FloatArray = field(default_factory=lambda: _nothing(0))  # (B,) mean over images of sum |C|
    blocks: tuple[str, ...] = ()  # (B,) names of the visual blocks; (): embeddings only
    seconds: float = np.nan  # an image through the visual tower, on this machine
    weights: str = ""  # digest of the candidate's weights and configuration

    @property
    def all_features(self) -> FloatArray:
        """Embeddings (n + u, D) of the images and of the further ones."""
        return np.concatenate([self.features, self.others]) if self.others.size else self.features

    def embedded(self, labels: IntArray | None = None) -> Embedded | None:
        """The embeddings as signals want them, with the labels of the images; None where there are none."""
        return self._embedded(self.features, labels)

    def embedded_whole(self) -> Embedded | None:
        """The embeddings of all images, without labels; None where there are none."""
        return self._embedded(self.all_features)

    def _embedded(self, features: FloatArray, labels: IntArray | None = None) -> Embedded | None:
        if not features.size:
            return None
        return Embedded(
            features=features,
            texts=self.text_features,
            baseline=self.baseline if self.baseline.size else np.zeros(features.shape[1]),
            labels=labels,
        )
