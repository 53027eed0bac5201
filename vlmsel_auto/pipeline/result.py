"""What a search and a ranking give back to the script or the notebook that called them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vlmsel_auto.errors import InputError
from vlmsel_auto.planning.objective import ACCURACY, Objective
from vlmsel_auto.records import Agreement, BestModel, EnsembleModel, Ranking, StoppedBy, TrialResult
from vlmsel_auto.reporting.notebook import ranking_frame, ranking_html, trials_frame, trials_html
from vlmsel_auto.reporting.report import SearchReport, load
from vlmsel_auto.reporting.tradeoff import Tradeoff, tradeoffs
from vlmsel_auto.tuning.methods import label_of
from vlmsel_auto.units import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, kw_only=True, slots=True)
class RankResult(Ranking):
    """A ranking that notebooks show as a table."""

    @classmethod
    def of(cls, ranking: Ranking) -> Self:
        """The same ranking."""
        return cls(**{each.name: getattr(ranking, each.name) for each in fields(Ranking)})

    def frame(self) -> DataFrame:
        """A row a candidate, best first; needs pandas (extra ``notebook``)."""
        return ranking_frame(self)

    def _repr_html_(self) -> str:
        return ranking_html(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """Outcome of `vlmsel_auto.search`; everything else is in ``report_dir``, which the plots are drawn from."""

    best: BestModel | None  # None: no trial succeeded
    ensemble: EnsembleModel | None  # None: it would be no better, or there are no two candidates
    trials: tuple[TrialResult, ...]
    ranking: RankResult  # as predicted before any trial
    agreement: Agreement  # of that prediction with what came out
    seconds: float  # wall time of this call
    workdir: Path
    report_dir: Path
    stopped_by: StoppedBy
    objective: Objective = ACCURACY  # by which the best was chosen
    tradeoffs: tuple[Tradeoff, ...] = ()  # the best of each tuned candidate and the ensemble, fastest first

    @classmethod
    def of(cls, report: SearchReport, *, workdir: Path, seconds: float) -> Self:
        """What a report in ``workdir`` says, after so many seconds of wall time."""
        return cls(
            best=report.best,
            ensemble=report.ensemble,
            trials=report.trials,
            ranking=RankResult.of(report.ranking),
            agreement=report.agreement,
            seconds=seconds,
            workdir=workdir,
            report_dir=workdir / "report",
            stopped_by=report.stopped_by,
            objective=report.objective,
            tradeoffs=tradeoffs(report),
        )

    def trials_frame(self) -> DataFrame:
        """A row a trial, by number; needs pandas (extra ``notebook``)."""
        return trials_frame(self.trials)

    def plot(self, name: str) -> Figure:
        """A plot of the report.

        Args:
            name: "ranking", "ranks", "time", "tradeoff", "confusion", "recall", "reliability" or "coverage".

        Raises:
            InputError: there is no such plot, or of this search it would say nothing.
        """
        from vlmsel_auto.reporting.html_page import drawings  # imports matplotlib

        drawn = drawings(load(self.report_dir))
        if name not in drawn:
            raise InputError(f"of this search there are the plots {', '.join(sorted(drawn))}, but got {name!r}")
        return drawn[name]()

    def _repr_html_(self) -> str:
        notes = [f"report: {self.report_dir / 'report.html'}"]
        if self.best is not None:
            best = self.best
            reached = f"validation {percent(best.validation)}, test {percent(best.test)}"
            notes.insert(0, f"best: {best.candidate}, {label_of(best.method)}, {reached}")
        return trials_html(self.trials, notes=notes)
