"""The end of a search: what its outcome teaches the library, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.events import Notice, ReportWritten, Sink
from vlmsel_auto.library.places import default_library, remember
from vlmsel_auto.measuring.search_cells import RUN_SOURCES, cells_of_search
from vlmsel_auto.pipeline.joined import Joined, Trials
from vlmsel_auto.pipeline.judged_images import find_label_issues, find_mistakes
from vlmsel_auto.pipeline.rank import Ranked
from vlmsel_auto.pipeline.result import SearchResult
from vlmsel_auto.pipeline.session import Run
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.records import BestModel, Candidate, EnsembleModel, StoppedBy, Task, TrialResult, TrialState
from vlmsel_auto.reporting import html_page
from vlmsel_auto.reporting.evaluation import evaluate
from vlmsel_auto.reporting.report import (
    RANKING_STAGE,
    START_STAGE,
    TRIALS_STAGE,
    CandidateSummary,
    SearchReport,
    TaskSummary,
    package_versions,
)
from vlmsel_auto.reporting.sentences import choice_notes
from vlmsel_auto.study.study import StudyOutcome


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchModels:
    """The models of a search, and the trials behind them."""

    best: BestModel | None
    ensemble: EnsembleModel | None
    chosen: Joined | None = None  # the best model, without its tower
    trials: Trials | None = None  # None: without labels there are none
    trials_seconds: float = 0.0  # wall time of this run's
    members: tuple[TrialResult, ...] = ()  # the best trial of each leading candidate, best first
    notes: Sequence[str] = ()  # what users of the models must know
    latencies: Mapping[str, float]  # candidate -> seconds an image


def report_search(
    run: Run, ranked: Ranked, models: SearchModels, *, stopped: StoppedBy, ranked_after: float
) -> SearchResult:
    """Learn from a search that was not interrupted, and write the report to ``workdir/report``.

    Args:
        run: the search.
        ranked: the ranking before the trials.
        models: the models.
        stopped: what ended the trials.
        ranked_after: seconds until the ranking was there.
    """
    request, session, ranking, task = run.request, run.session, ranked.ranking, ranked.task
    best, candidates, mistakes, label_issues = models.best, session.candidates, None, None
    trials = () if models.trials is None else tuple(models.trials.results)
    notes = [*models.notes, *task.notes, *ranking.notes]
    if request.learn and trials and best is not None and stopped is not StoppedBy.INTERRUPTED:
        notes.append(learn_from(task, ranked.usable, ranked.measurements, trials, seed=request.seed, sink=session.sink))
    seconds = run.seconds
    if models.trials is not None:
        mistakes = find_mistakes(models.chosen, models.trials, images=request.thumbnails)
        label_issues = find_label_issues(models.members, models.trials, images=request.thumbnails)
    evaluation = evaluate(ranking, trials, chosen=None if best is None else best.trial, seed=request.seed)
    notes += choice_notes(best, trials, images=len(task.val), objective=session.objective)
    report = SearchReport(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=run.command,
        task=TaskSummary.of(task),
        candidates=tuple(CandidateSummary.of(one, latency=models.latencies.get(one.id)) for one in candidates),
        ranking=ranking,
        trials=trials,
        best=best,
        ensemble=models.ensemble,
        mistakes=mistakes,
        label_issues=label_issues,
        agreement=evaluation.agreement,
        baselines=evaluation.baselines,
        actual_on=evaluation.actual_on,
        budget=request.budget,
        objective=session.objective,
        seconds=seconds,
        stage_seconds=_stage_seconds(run, models, ranked_after=ranked_after, seconds=seconds),
        stopped_by=stopped,
        bad_files=(*task.bad_files, *task.pixels.found_bad),
        notes=tuple(notes),
        settings=_settings(run),
        versions=package_versions(),
        seed=request.seed,
        workdir=str(run.workdir),
    )
    directory = run.workdir / "report"
    html_page.write(report, directory)
    session.sink(ReportWritten(directory=directory, best=best, ensemble=report.ensemble, agreement=report.agreement))
    return SearchResult.of(report, workdir=run.workdir, seconds=run.seconds)


def _stage_seconds(run: Run, models: SearchModels, *, ranked_after: float, seconds: float) -> dict[str, float]:
    """Seconds of each stage of a run, in their order."""
    trials = {TRIALS_STAGE: models.trials_seconds} if run.session.task.is_labelled else {}
    return {
        START_STAGE: run.started_after,
        RANKING_STAGE: ranked_after - run.started_after,
        **trials,
        "export": max(0.0, seconds - ranked_after - models.trials_seconds),
    }


def _settings(run: Run) -> dict[str, str]:
    """What the report says of how the search was made."""
    plan = {"top_k": run.request.top_k} if run.session.task.is_labelled else {}
    return {name: str(value) for name, value in {**run.settings, **plan, "device": run.session.device}.items()}


def ended_by(outcome: StudyOutcome) -> StoppedBy:
    """What ended the trials, where they came to anything."""
    stopped = outcome.stopped_by
    if stopped is StoppedBy.INTERRUPTED or not outcome.results:
        return stopped
    return StoppedBy.ALL_FAILED if all(each.state is TrialState.FAILED for each in outcome.results) else stopped


def learn_from(
    task: Task,
    candidates: Sequence[Candidate],
    measured: Sequence[Measurement],
    trials: Sequence[TrialResult],
    *,
    seed: int,
    sink: Sink,
) -> str:
    """Add the search to the user's library; a library that cannot be written costs a notice, not the search."""
    shipped = next((one.name for one in default_library().tasks if one.digest == task.digest), None)
    if shipped is not None:  # its figures come from whole test splits, a search's from a few trials
        return f"not added to the library: the shipped library has this task as {shipped!r}, better measured"
    try:
        cells = cells_of_search(task=task, candidates=candidates, measured=measured, trials=trials, seed=seed)
        if not cells:  # the time was over before the first screening
            return "not added to the library: no candidate was screened"
        path, name = remember(cells, run_sources=RUN_SOURCES)
    except LibraryError as error:
        sink(Notice(text=f"the search was not added to your library: {error}", level="warning"))
        return f"not added to the library: {error}"
    return f"added to the library {path} as source task {name!r}"
