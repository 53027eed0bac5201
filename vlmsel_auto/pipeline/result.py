"""What a search gives back to the script that called it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.records import Agreement, Ranking, TrialResult
from vlmsel_auto.reporting.report import StoppedBy

__all__ = ["BestModel", "SearchResult"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BestModel:
    """The chosen model. Figures are the task's metric in [0, 1]."""

    candidate: str
    method: str
    validation: float  # what chose it
    test: float | None  # on the test split, which chose nothing
    trial: int
    model_dir: Path | None  # exported open_clip folder; None: the search was interrupted before the export


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """Outcome of `vlmsel_auto.search`; everything else is in ``report_dir``."""

    best: BestModel | None  # None: no trial succeeded
    trials: tuple[TrialResult, ...]
    ranking: Ranking  # as predicted before any trial
    agreement: Agreement  # of that prediction with what came out
    seconds: float  # wall time of this call
    workdir: Path
    report_dir: Path
    stopped_by: StoppedBy
