"""The end of a search: what its outcome teaches the library, and the report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlmsel_auto.events import ReportWritten, Sink
from vlmsel_auto.pipeline.finish import Finished
from vlmsel_auto.pipeline.label_issues import find_label_issues
from vlmsel_auto.pipeline.learning import learn_from
from vlmsel_auto.pipeline.mistakes import find_mistakes
from vlmsel_auto.pipeline.rank import Ranked
from vlmsel_auto.planning.objective import Objective
from vlmsel_auto.records import Budget, Candidate, StoppedBy, Task, TrialState
from vlmsel_auto.reporting import views
from vlmsel_auto.reporting.make_report import make_report
from vlmsel_auto.reporting.report import RANKING_STAGE, START_STAGE, TRIALS_STAGE, SearchReport
from vlmsel_auto.study.study import StudyOutcome


def conclude(
    finished: Finished,
    *,
    task: Task,
    candidates: Sequence[Candidate],
    ranked: Ranked,
    stopped: StoppedBy,
    learn: bool,
    thumbnails: bool,
    budget: Budget,
    objective: Objective,
    began: float,
    started_after: float,
    ranked_after: float,
    command: str,
    settings: Mapping[str, str],
    seed: int,
    workdir: Path,
    sink: Sink,
) -> SearchReport:
    """Learn from a search that was not interrupted, and write the report to ``workdir/report``.

    Args:
        finished: the models.
        task: the target.
        candidates: all of them.
        ranked: the ranking before the trials.
        stopped: what ended the trials.
        learn: add the outcome to the user's library.
        thumbnails: whether the report shows images.
        budget: of the search.
        objective: by which the models were chosen.
        began: `time.monotonic` from which it counts.
        started_after: seconds until the first image was read.
        ranked_after: seconds until the ranking was there.
        command: by which the search can be run again.
        settings: told in the report.
        seed: of the search.
        workdir: of the search.
        sink: takes events.
    """
    outcome, ranking = finished.outcome, ranked.ranking
    usable = [one for one in candidates if one.id not in ranking.failures]
    notes = [*finished.warnings.values(), *task.notes, *ranking.notes]
    if learn and outcome.best is not None and stopped is not StoppedBy.INTERRUPTED:
        notes.append(learn_from(task, usable, ranked.measurements, outcome.results, seed=seed, sink=sink))
    seconds = time.monotonic() - began
    report = make_report(
        task=task,
        candidates=candidates,
        latencies=finished.latencies,
        ranking=ranking,
        trials=outcome.results,
        best=finished.best,
        ensemble=finished.ensemble,
        mistakes=find_mistakes(finished.chosen, task=task, candidates=usable, images=thumbnails, sink=sink),
        label_issues=find_label_issues(
            outcome.members,
            results=outcome.results,
            task=task,
            candidates=usable,
            workdir=workdir,
            images=thumbnails,
            sink=sink,
        ),
        budget=budget,
        objective=objective,
        seconds=seconds,
        stopped_by=stopped,
        stage_seconds={
            START_STAGE: started_after,
            RANKING_STAGE: ranked_after - started_after,
            TRIALS_STAGE: outcome.seconds,
            "export": max(0.0, seconds - ranked_after - outcome.seconds),
        },
        command=command,
        settings=settings,
        seed=seed,
        workdir=workdir,
        notes=notes,
    )
    publish(report, workdir=workdir, sink=sink)
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
