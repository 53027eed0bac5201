"""The registry of signals: every score of a candidate on a task that its embeddings give.

A new score is a function, best in a module of `evidence`, and one line of `SIGNALS`. Rankings fuse those that are
``ranked``; the others are measured only where research tables want them. A library that lacks a score is used without
it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from scipy import special

from vlmsel_auto.ranking.evidence import hscore, knn, leep, likelihood, linear, logme, zeroshot
from vlmsel_auto.records import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """What one candidate makes of a task's images and class names."""

    features: FloatArray  # (n, D) unnormalised image embeddings, n >= 1
    texts: FloatArray  # (K, D) unit-norm class weights, K >= 2
    baseline: FloatArray  # (D,) embedding of the baseline image (zeros after normalisation)
    logit_scale: float = 1.0  # the model's own factor on cosines
    labels: IntArray | None = None  # (n,) classes 0..K-1
    seed: int = 0  # of scores that draw

    @cached_property
    def cosine(self) -> FloatArray:
        """Cosines (n, K)."""
        return zeroshot.cosines(self.features, self.texts)

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
    """One score, oriented so that higher is better; NaN where it is not defined."""

    name: str
    score: Callable[[Embedded], float]
    labelled: bool  # whether it needs labels
    ranked: bool = False  # whether rankings fuse it; must then not depend on the logit scale
    row: str = ""  # of the bench's table; "": none


def _free(name: str, score: Callable[[Embedded], float], *, ranked: bool = False, row: str = "") -> Signal:
    return Signal(name=name, score=score, labelled=False, ranked=ranked, row=row)


def _labelled(name: str, score: Callable[[Embedded], float], *, ranked: bool = False, row: str = "") -> Signal:
    return Signal(name=name, score=score, labelled=True, ranked=ranked, row=row)


def _sharp(e: Embedded) -> FloatArray:
    """Zero-shot softmax (n, K) at a sharpness that does not depend on the model's logit scale."""
    return np.asarray(special.softmax(2.0 / max(float(np.std(e.cosine)), 1e-12) * e.cosine, axis=1), dtype=np.float64)


CONSENSUS: Final = "consensus"  # not of one candidate: compares the predictions of all that are listed
ALIGNMENT: Final = "alignment"  # likewise, of their nearest neighbours; of tuned rankings alone
TOP2_MARGIN: Final = "top2_margin_cosine"  # also weighs the votes of both

# The ranked labelled ones are graded: with few labels an accuracy has few values (docs/choices.md has the comparison).
SIGNALS: Final = (
    _free("confidence", lambda e: zeroshot.confidence(e.cosine, logit_scale=e.logit_scale), row="confidence"),
    _free("entropy", lambda e: zeroshot.entropy(e.cosine, logit_scale=e.logit_scale), row="entropy"),
    _free(TOP2_MARGIN, lambda e: zeroshot.top2_margin(e.cosine), ranked=True, row="top2_margin"),
    _free("top2_margin_spread", lambda e: zeroshot.top2_margin(e.cosine) / e.spread, ranked=True),
    _free("margin_cosine", lambda e: zeroshot.margin(e.cosine), ranked=True),
    _free("margin_spread", lambda e: zeroshot.margin(e.cosine) / e.spread, ranked=True),
    _free("total_cosine", lambda e: zeroshot.margin_gain(e.cosine, e.baseline_cosine), ranked=True),
    _free("iimm", lambda e: zeroshot.iimm(e.features, e.texts), row="iimm"),
    _labelled("zeroshot", lambda e: zeroshot.zeroshot(e.cosine, e.classes), row="zeroshot_fewshot"),
    _labelled(
        "true_class_zscore",
        lambda e: zeroshot.true_class_zscore(e.cosine, e.classes),
        ranked=True,
        row="true_class_zscore",
    ),
    _labelled("zeroshot_likelihood", lambda e: likelihood.zeroshot_log_likelihood(e.cosine, e.classes), ranked=True),
    _labelled("knn", lambda e: knn.knn(e.features, e.classes, k=5), row="knn"),
    _labelled("knn1", lambda e: knn.knn(e.features, e.classes, k=1)),
    _labelled("logme", lambda e: logme.logme(e.features, e.classes), ranked=True, row="logme"),
    _labelled("hscore", lambda e: hscore.hscore(e.features, e.classes), row="hscore"),
    _labelled("leep", lambda e: leep.leep(_sharp(e), e.classes), ranked=True, row="leep"),
    _labelled("nleep", lambda e: leep.nleep(e.features, e.classes, seed=e.seed), row="nleep"),
    _labelled("logistic", lambda e: linear.logistic(e.features, e.classes, seed=e.seed), row="logistic"),
    _labelled("ridge", lambda e: linear.ridge(e.features, e.classes), row="ridge"),
    _labelled("ridge_text", lambda e: linear.ridge(e.features, e.classes, text_features=e.texts)),
    _labelled("ridge_likelihood", lambda e: linear.ridge_log_likelihood(e.features, e.classes), ranked=True),
    _labelled(
        "ridge_text_likelihood",
        lambda e: linear.ridge_log_likelihood(e.features, e.classes, text_features=e.texts),
        ranked=True,
    ),
)

IMAGE_SIGNALS: Final = (CONSENSUS, ALIGNMENT, *(one.name for one in SIGNALS if one.ranked and not one.labelled))
LABEL_SIGNALS: Final = tuple(one.name for one in SIGNALS if one.ranked and one.labelled)


def label_free_signals(seen: Embedded, *, ranked: bool = True) -> dict[str, float]:
    """What unlabelled images and class names say, by name: what rankings fuse, or else all the other scores."""
    return {one.name: one.score(seen) for one in SIGNALS if not one.labelled and one.ranked == ranked}


def evidence_scores(seen: Embedded, *, ranked: bool = True) -> dict[str, float]:
    """What labelled images say, by name: what rankings fuse, or else all the other scores, which may take seconds."""
    return {one.name: one.score(seen) for one in SIGNALS if one.labelled and one.ranked == ranked}


def image_number(indices: IntArray) -> float:
    """A number for these images of a task in this order: predictions may be compared where it is the same."""
    return float(zlib.crc32(np.ascontiguousarray(indices, dtype=np.int64).tobytes()))
