"""SWAB: bridge text and image by what a model did on source classes that resemble the target's.

Yi et al., "Bridge the Modality and Capability Gaps in Vision-Language Model Selection", NeurIPS 2024 (arXiv
2403.13797). Class similarities come from each candidate's own text tower instead of a sentence encoder, and ranking 1
scores predicted image embeddings of the class texts themselves instead of a language model's captions, as neither an
encoder nor captions are at hand offline. Ranks go by partial, gaps by exact transport (POT).
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import ot
from scipy import stats

from benchmarks.ranking.research import Research
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.rankings import Ranker
from vlmsel_auto.ranking.evidence.zeroshot import cosines
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.records import FloatArray

_THRESHOLD: Final = 0.5  # least cosine of a source class to some target class
_PARTIAL_MASS: Final = 0.9


def similar_classes(source: FloatArray, target: FloatArray) -> FloatArray:
    """Whether (Ks,) a source class text (Ks, D) has a cosine above .5 to any target class text (Kt, D)."""
    return np.asarray(cosines(source, target).max(axis=1) > _THRESHOLD)


def class_plan(source: FloatArray, target: FloatArray, *, kind: Literal["exact", "partial"]) -> FloatArray:
    """Transport plan (Ks, Kt) between equally heavy class texts (Ks, D) and (Kt, D), cost exp(1 - cosine).

    "exact" moves all mass, 1, "partial" 90 % of it.
    """
    cost = np.exp(1.0 - cosines(source, target))
    a, b = np.full(len(source), 1.0 / len(source)), np.full(len(target), 1.0 / len(target))
    if kind == "exact":
        return np.asarray(ot.emd(a, b, cost), dtype=np.float64)
    return np.asarray(ot.partial.partial_wasserstein(a, b, cost, m=_PARTIAL_MASS), dtype=np.float64)


def class_rank_score(plan: FloatArray, ranks: FloatArray) -> float:
    """Ranking 2: a model's ranks (Ks,) on source classes (0 worst), carried to the target by the plan (Ks, Kt)."""
    return float(ranks @ plan.sum(axis=1))


def gap_score(
    plan: FloatArray, *, source_gaps: FloatArray, target_text: FloatArray, text_mean: FloatArray, text_sd: FloatArray
) -> float:
    """Ranking 1: how well image embeddings, predicted as text plus carried gap, would be told apart.

    Args:
        plan: (Ks, Kt) exact plan.
        source_gaps: (Ks, D) standardised image mean minus standardised text of each source class.
        target_text: (Kt, D) class texts.
        text_mean: (D,) of the standardisation of texts.
        text_sd: (D,) likewise, positive.

    Returns:
        Mean over classes of the cosine to the own text minus the highest cosine to another text, in [-2, 2].
    """
    gaps = plan.T @ source_gaps * plan.shape[1]
    z = (target_text - text_mean) / text_sd
    cosine = cosines(z + gaps, z)
    own = np.diag(cosine).copy()
    np.fill_diagonal(cosine, -np.inf)
    return float(np.mean(own - cosine.max(axis=1)))


def borda(first: FloatArray, second: FloatArray) -> FloatArray:
    """Half the Borda counts of two scores (M,), ties averaged; higher is better."""
    return np.asarray(0.5 * stats.rankdata(first) + 0.5 * stats.rankdata(second), dtype=np.float64)


def standardised_gaps(found: Research, m: int) -> FloatArray:
    """Image mean minus text of every class (G, D), each standardised: images within their task, texts over all."""
    text, image = found.class_text[m], found.class_image[m]
    gaps = np.full(text.shape, np.nan)
    z_text = standardise(text)
    for s, part in enumerate(found.class_slices()):
        spread = np.where(found.image_sd[m][s] > 0.0, found.image_sd[m][s], 1.0)
        if np.isfinite(image[part]).all():
            gaps[part] = (image[part] - image[part].mean(axis=0)) / spread - z_text[part]
    return gaps


def ranking(found: Research) -> Ranker:
    """SWAB on the class statistics of a library's candidates and tasks."""

    def rank(case: Case) -> list[FloatArray]:
        target = found.class_slices()[case.column]
        sources = found.take(case.rows, np.delete(np.arange(len(found.tasks)), case.column))
        ranks = stats.rankdata(sources.class_accuracy, axis=0, nan_policy="omit") - 1.0
        first, second = np.full(len(case.rows), np.nan), np.full(len(case.rows), np.nan)
        for i, m in enumerate(case.rows):
            own, text = sources.class_text[i], found.class_text[m][target]
            if own.shape[1] == 0 or not np.isfinite(text).all():
                continue
            gaps = standardised_gaps(sources, i)
            kept = np.isfinite(gaps).all(axis=1) & np.isfinite(sources.class_accuracy[i])
            kept &= similar_classes(np.nan_to_num(own), text)
            if kept.sum() < 2:  # a plan between fewer says nothing
                continue
            spread = own[kept].std(axis=0)
            first[i] = gap_score(
                class_plan(own[kept], text, kind="exact"),
                source_gaps=gaps[kept],
                target_text=text,
                text_mean=own[kept].mean(axis=0),
                text_sd=np.where(spread > 0.0, spread, 1.0),
            )
            second[i] = class_rank_score(class_plan(own[kept], text, kind="partial"), ranks[i, kept])
        if not np.isfinite(second).any():
            return []
        return [borda(np.nan_to_num(first, nan=-np.inf), np.nan_to_num(second, nan=-np.inf))]

    return rank
