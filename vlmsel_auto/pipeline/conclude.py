"""The end of a search: what its outcome teaches the library, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.events import Notice, ReportWritten, Sink
from vlmsel_auto.library.places import default_library, remember
from vlmsel_auto.measuring.search import RUN_SOURCES, cells_of_search
from vlmsel_auto.pipeline.finish import Finished
from vlmsel_auto.pipeline.label_issues import find_label_issues
from vlmsel_auto.pipeline.mistakes import find_mistakes
from vlmsel_auto.pipeline.rank import Ranked
from vlmsel_auto.pipeline.run import Run
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.records import Candidate, StoppedBy, Task, TrialResult, TrialState
from vlmsel_auto.reporting import views
from vlmsel_auto.reporting.make_report import make_report
from vlmsel_auto.reporting.report import RANKING_STAGE, START_STAGE, TRIALS_STAGE, SearchReport
from vlmsel_auto.study.study import StudyOutcome


def conclude(
    run: Run, ranked: Ranked, finished: Finished, *, task: Task, stopped: StoppedBy, ranked_after: float
) -> SearchReport:
    """Learn from a search that was not interrupted, and write the report to ``workdir/report``.

    Args:
        run: the search.
        ranked: the ranking before the trials.
        finished: the models.
        task: the target, in the templates that were chosen.
        stopped: what ended the trials.
        ranked_after: seconds until the ranking was there.
    """
    request, session, outcome, ranking = run.request, run.session, finished.outcome, ranked.ranking
    usable = [one for one in session.candidates if one.id not in ranking.failures]
    notes = [*finished.warnings.values(), *task.notes, *ranking.notes]
    if request.learn and outcome.best is not None and stopped is not StoppedBy.INTERRUPTED:
        notes.append(
            learn_from(task, usable, ranked.measurements, outcome.results, seed=request.seed, sink=session.sink)
        )
    seconds = run.seconds
    settings = {**run.settings, "top_k": request.aim.top_k, "device": session.device}
    report = make_report(
        task=task,
        candidates=session.candidates,
        latencies=finished.latencies,
        ranking=ranking,
        trials=outcome.results,
        best=finished.best,
        ensemble=finished.ensemble,
        mistakes=find_mistakes(
            finished.chosen, task=task, candidates=usable, images=request.thumbnails, sink=session.sink
        ),
        label_issues=find_label_issues(
            outcome.members,
            results=outcome.results,
            task=task,
            candidates=usable,
            workdir=run.workdir,
            images=request.thumbnails,
            sink=session.sink,
        ),
        budget=request.budget,
        objective=session.objective,
        seconds=seconds,
        stopped_by=stopped,
        stage_seconds={
            START_STAGE: run.started_after,
            RANKING_STAGE: ranked_after - run.started_after,
            TRIALS_STAGE: outcome.seconds,
            "export": max(0.0, seconds - ranked_after - outcome.seconds),
        },
        command=run.command,
        settings={name: str(value) for name, value in settings.items()},
        seed=request.seed,
        workdir=run.workdir,
        notes=notes,
    )
    publish(report, workdir=run.workdir, sink=session.sink)
    return report


def publish(report: SearchReport, *, workdir: Path, sink: Sink) -> None:
    """Write a report to ``workdir/report``, and say so."""
    directory = workdir / "report"
    views.write(report, directory)
    sink(ReportWritten(directory=directory, best=report.best, ensemble=report.ensemble, agreement=report.agreement))


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
        path, name = remember(cells=cells, run_sources=RUN_SOURCES)
    except LibraryError as error:
        sink(Notice(text=f"the search was not added to your library: {error}", level="warning"))
        return f"not added to the library: {error}"
    return f"added to the library {path} as source task {name!r}"
