"""Scores of candidates in standard units: signals of the target and source tasks, fused by what the sources teach.

Where the library has too few tasks, or none that knows a signal, weights are fixed. Candidates of which nothing is
measured have what source tasks alone say of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.ranking.fusion import Fusion, candidate_effect, fit_fusion, fuse, trend
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.ranking.signals import IMAGE_SIGNALS, LABEL_SIGNALS
from vlmsel_auto.ranking.sources import Sources
from vlmsel_auto.records import FloatArray

# without a library: equal shares, labels twice as much as images, and errors as the mini zoo shows them
_FIXED_WEIGHT: Final = 0.1  # of a signal of unlabelled images
_FIXED_LABEL_WEIGHT: Final = 0.15
_FIXED_SD: Final = 0.75
_MIN_SOURCES: Final = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Scores of M candidates in standard units, and what they rest on."""

    score: FloatArray  # (M,) everything fused
    sd: FloatArray  # (M,)
    prior: FloatArray  # (M,) source tasks and unlabelled images, no labels
    evidence: FloatArray  # (M,) labels alone
    average: FloatArray  # (M,) plain mean of standardised accuracies on the sources, NaN for unknown candidates
    dcd: FloatArray  # (M,) the same weighted by DCD
    trust: Mapping[str, float]  # share of each kind in the spread of the scores, sums to 1 (or is all 0)
    sources: int  # tasks that something was learned on; 0: weights are fixed, and nothing is known of a candidate


def _fit(sources: Sources | None, names: Sequence[str], *, effects: bool) -> Fusion:
    """Weights of these signals: learned where the library has enough sources that know them, else fixed."""
    fixed = {name: _FIXED_LABEL_WEIGHT if name in LABEL_SIGNALS else _FIXED_WEIGHT for name in names}
    if sources is not None:
        have = {name: sources.signals[name] for name in names if name in sources.signals}
        similarity = sources.similarity if effects else None
        fusion = fit_fusion(have, sources.truth, similarity=similarity, reliability=sources.reliability)
        if have and not any(weight > 0.0 for weight in fusion.weights.values()):  # no signal helped: none is learned
            fusion = fit_fusion({}, sources.truth, similarity=similarity, reliability=sources.reliability)
        if fusion.sources >= _MIN_SOURCES:
            return replace(fusion, weights={**fixed, **fusion.weights})
    return Fusion(weights=fixed, sd=_FIXED_SD, trend_sd=_FIXED_SD, sources=0)


def _trust(fusion: Fusion, measured: Mapping[str, FloatArray], sources: Sources | None, n: int) -> dict[str, float]:
    def spread_of(names: Sequence[str]) -> float:
        return float(np.std(trend(fusion, {name: measured[name] for name in names if name in measured}, n=n)))

    effects = 0.0
    if sources is not None and fusion.residual.size:
        effects = float(np.std(candidate_effect(fusion.residual, sources.to_target, shrink=fusion.shrink)))
    spreads = {
        "source tasks": effects,
        "unlabelled images": spread_of(IMAGE_SIGNALS),
        "labels": spread_of(LABEL_SIGNALS),
    }
    total = sum(spreads.values()) or 1.0
    return {kind: spread / total for kind, spread in spreads.items()}


def score_candidates(*, measured: Mapping[str, FloatArray], sources: Sources | None, n: int) -> Scores:
    """Fuse the signals of the target with what was learned from the sources.

    Args:
        measured: name -> (M,) image and label signals of the target, of `IMAGE_SIGNALS` and `LABEL_SIGNALS`.
        sources: the library, or None.
        n: number of candidates M.
    """
    images = [name for name in IMAGE_SIGNALS if name in measured]
    said = [name for name in LABEL_SIGNALS if name in measured]
    near = None if sources is None else sources.to_target
    everything = _fit(sources, [*images, *said], effects=True)
    prior = everything if not said else _fit(sources, images, effects=True)
    evidence = _fit(sources, said, effects=False)
    known = np.zeros(n, dtype=np.bool_)
    average = dcd_score = np.full(n, np.nan)
    if sources is not None:
        known = sources.known
        z = np.where(np.isfinite(sources.truth), standardise(sources.truth), np.nan)
        average = np.where(known, candidate_effect(z, np.ones_like(z), shrink=0.0), np.nan)
        dcd_score = np.where(known, candidate_effect(z, sources.alone, shrink=0.0), np.nan)
    screened = np.zeros(n, dtype=np.bool_)
    for values in measured.values():
        screened |= np.isfinite(values)
    score, sd = fuse(everything, measured, n=n, similarity=near), np.where(known, everything.sd, everything.trend_sd)
    before = fuse(prior, measured, n=n, similarity=near)
    if screened.any() and not screened.all():
        apart = _fit(sources, [], effects=True)
        alone = fuse(apart, {}, n=n, similarity=near)
        score, before = (_beside_others(one, alone, screened=screened) for one in (score, before))
        sd = np.where(screened, sd, apart.sd)
    return Scores(
        score=score,
        sd=sd,
        prior=before,
        evidence=fuse(evidence, measured, n=n),
        average=average,
        dcd=dcd_score,
        trust=_trust(everything, measured, sources, n),
        sources=everything.sources,
    )


def _beside_others(score: FloatArray, alone: FloatArray, *, screened: NDArray[np.bool_]) -> FloatArray:
    """Scores (M,) where some candidates have no signal: these have what sources alone say, not what is beyond a trend.

    The others were standardised among themselves. On average they stand where sources alone put them, since whoever is
    screened is no draw by chance.
    """
    return np.where(screened, score + (alone[screened].mean() - score[screened].mean()), alone)
