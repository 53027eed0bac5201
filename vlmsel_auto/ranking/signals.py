"""The registry of signals: every score of a candidate on a task, from its embeddings, that rankings fuse.

A new score is a function, best in a module of `evidence`, and one line of `SIGNALS`. A library that lacks a score is
used without it. Scores that are only compared with the ranking are in `benchmarks/ranking/compared_scores.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from scipy import special

from vlmsel_auto.ranking.evidence import leep, likelihood, linear, logme, zeroshot
from vlmsel_auto.records import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """What one candidate makes of a task's images and class names."""

    features: FloatArray  # (n, D) unnormalised image embeddings, n >= 1
    texts: FloatArray  # (K, D) unit-norm class weights, K >= 2; empty: there is no text tower
    baseline: FloatArray  # (D,) embedding of the baseline image (zeros after normalisation)
    labels: IntArray | None = None  # (n,) classes 0..K-1

    @cached_property
    def cosine(self) -> FloatArray:
        """Cosines (n, K)."""
        return zeroshot.cosines(self.features, self.texts)

    @property
    def start(self) -> FloatArray | None:
        """Class weights that a head starts at; None: at zero."""
        return self.texts if self.texts.size else None

    @property
    def predicted(self) -> IntArray:
        """Zero-shot class (n,) of each image."""
        return np.asarray(self.cosine.argmax(axis=1), dtype=np.int64)

    @cached_property
    def baseline_cosine(self) -> FloatArray:
        """Cosines (K,) of the baseline image."""
        return zeroshot.cosines(self.baseline[None, :], self.texts).ravel()

    @cached_property
    def spread(self) -> float:
        """Standard deviation of the cosines between images, class by class."""
        return max(float(np.std(self.cosine - self.cosine.mean(axis=0))), 1e-12)

    @property
    def classes(self) -> IntArray:
        """The labels, where a score needs them.

        Raises:
            ValueError: there are none.
        """
        if self.labels is None:
            raise ValueError("a score of labels needs labels, but got None")
        return self.labels


@dataclass(frozen=True, kw_only=True, slots=True)
class Signal:
    """One score, oriented so that higher is better, the same at every logit scale; NaN where it is not defined."""

    name: str
    score: Callable[[Embedded], float]
    labelled: bool  # whether it needs labels
    texts: bool = True  # whether it needs class weights


def _free(name: str, score: Callable[[Embedded], float]) -> Signal:
    return Signal(name=name, score=score, labelled=False)


def _labelled(name: str, score: Callable[[Embedded], float], *, texts: bool = True) -> Signal:
    return Signal(name=name, score=score, labelled=True, texts=texts)


def _sharp(e: Embedded) -> FloatArray:
    """Zero-shot softmax (n, K) at a sharpness that does not depend on the model's logit scale."""
    return np.asarray(special.softmax(2.0 / max(float(np.std(e.cosine)), 1e-12) * e.cosine, axis=1), dtype=np.float64)


CONSENSUS: Final = "consensus"  # not of one candidate: compares the predictions of all that are listed
ALIGNMENT: Final = "alignment"  # likewise, of their nearest neighbours; of tuned rankings alone
TOP2_MARGIN: Final = "top2_margin_cosine"  # also weighs the votes of both

# The labelled ones are graded: with few labels an accuracy has few values (docs/choices.md has the comparison).
SIGNALS: Final = (
    _free(TOP2_MARGIN, lambda e: zeroshot.top2_margin(e.cosine)),
    _free("top2_margin_spread", lambda e: zeroshot.top2_margin(e.cosine) / e.spread),
    _free("margin_cosine", lambda e: zeroshot.margin(e.cosine)),
    _free("margin_spread", lambda e: zeroshot.margin(e.cosine) / e.spread),
    _free("total_cosine", lambda e: zeroshot.margin_gain(e.cosine, e.baseline_cosine)),
    _labelled("true_class_zscore", lambda e: zeroshot.true_class_zscore(e.cosine, e.classes)),
    _labelled("zeroshot_likelihood", lambda e: likelihood.zeroshot_log_likelihood(e.cosine, e.classes)),
    _labelled("logme", lambda e: logme.logme(e.features, e.classes), texts=False),
    _labelled("leep", lambda e: leep.leep(_sharp(e), e.classes)),
    _labelled("ridge_likelihood", lambda e: linear.ridge_log_likelihood(e.features, e.classes), texts=False),
    _labelled(
        "ridge_text_likelihood",
        lambda e: linear.ridge_log_likelihood(e.features, e.classes, text_features=e.start),
        texts=False,  # without them a head starts at zero
    ),
)

IMAGE_SIGNALS: Final = (CONSENSUS, ALIGNMENT, *(one.name for one in SIGNALS if not one.labelled))
LABEL_SIGNALS: Final = tuple(one.name for one in SIGNALS if one.labelled)


def label_free_signals(seen: Embedded) -> dict[str, float]:
    """What unlabelled images and class names say, by name."""
    return _scored(seen, labelled=False)


def evidence_scores(seen: Embedded) -> dict[str, float]:
    """What labelled images say, by name."""
    return _scored(seen, labelled=True)


def _scored(seen: Embedded, *, labelled: bool) -> dict[str, float]:
    named = seen.texts.size > 0
    there = (one for one in SIGNALS if one.labelled is labelled)
    return {one.name: one.score(seen) if named or not one.texts else np.nan for one in there}


def image_number(indices: IntArray) -> float:
    """A number for these images of a task in this order: predictions may be compared where it is the same."""
    return float(zlib.crc32(np.ascontiguousarray(indices, dtype=np.int64).tobytes()))
