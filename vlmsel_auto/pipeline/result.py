"""What a search gives back to the script that called it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.records import Agreement, BestModel, EnsembleModel, Ranking, StoppedBy, TrialResult
from vlmsel_auto.reporting.tradeoff import Tradeoff


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """Outcome of `vlmsel_auto.search`; everything else is in ``report_dir``."""

    best: BestModel | None  # None: no trial succeeded
    ensemble: EnsembleModel | None  # None: it would be no better, or there are no two candidates
    trials: tuple[TrialResult, ...]
    ranking: Ranking  # as predicted before any trial
    agreement: Agreement  # of that prediction with what came out
    seconds: float  # wall time of this call
    workdir: Path
    report_dir: Path
    stopped_by: StoppedBy
    tradeoffs: tuple[Tradeoff, ...] = ()  # the best of each tuned candidate and the ensemble, fastest first
