"""From a ranking to models where labels are known: trials, final fits, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from vlmsel_auto.cache import Json
from vlmsel_auto.engines.engine import Engine
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.events import Sink, discard
from vlmsel_auto.models import zoo
from vlmsel_auto.models.machine import Machine
from vlmsel_auto.pipeline.affordable import charges_of
from vlmsel_auto.pipeline.best_so_far import BestSoFar
from vlmsel_auto.pipeline.conclude import conclude, ended_by
from vlmsel_auto.pipeline.finish import Delivery, finish
from vlmsel_auto.pipeline.rank import Ranked
from vlmsel_auto.pipeline.result import SearchResult
from vlmsel_auto.pipeline.time_shares import joining_seconds, left_for_trials
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Budget, Candidate, StoppedBy
from vlmsel_auto.study.mirror import StudyMirror
from vlmsel_auto.study.study import run_study


def finish_with_labels(
    delivery: Delivery,
    candidates: Sequence[Candidate],
    *,
    ranked: Ranked,
    engine: Engine,
    mirror: StudyMirror | None,
    methods: Sequence[str],
    machine: Machine | None,
    budget: Budget,
    price: float,
    top_k: int,
    learn: bool,
    thumbnails: bool,
    command: str,
    settings: Mapping[str, Json],
    seed: int,
    began: float,
    started_after: float,
    device: str,
    sink: Sink,
) -> SearchResult:
    """Run the study of a search that has a ranking, export what came of it, and write the report.

    Args:
        delivery: decides which models there are.
        candidates: all that were chosen, also those that cannot be used.
        ranked: what looks found.
        engine: where trials and fits run.
        mirror: the study's record in a database, or None.
        methods: names of methods of tuning.
        machine: speed of this one, or None where nobody timed it.
        budget: of this call.
        price: points of the metric that a trial must promise a minute.
        top_k: candidates that the plan tunes first.
        learn: add the outcome to the user's library.
        thumbnails: whether the report shows images.
        command: as the report says it.
        settings: likewise.
        seed: of plan and trials.
        began: `time.monotonic` at the start of the search.
        started_after: seconds until the first image was read.
        device: where models run.
        sink: takes events.
    """
    ranking, task, usable, workdir = ranked.ranking, delivery.task, delivery.candidates, delivery.workdir
    objective, ranked_after = delivery.objective, time.monotonic() - began
    joining = 0.0
    if task.folds:
        images, members = len(task.labels), max(1, delivery.size)
        joining = joining_seconds([*delivery.latencies().values()], images=images, members=members)
    best_so_far = BestSoFar(sink=sink, task=task, candidates=usable, workdir=workdir)
    outcome = run_study(
        task=task,
        candidates=usable,
        ranking=ranking,
        budget=Budget(trials=1) if ranked.interrupted else left_for_trials(budget, spent=ranked_after, joining=joining),
        workdir=workdir,
        load=partial(zoo.load, device=device, sink=sink if isinstance(engine, InProcess) else discard),
        store=delivery.store,
        methods=methods,
        seed=seed,
        sink=best_so_far,
        device=device,
        top_k=top_k,
        mirror=mirror,
        charges=charges_of(objective, usable, machine=machine, measured=delivery.latencies()),
        policy=replace(POLICY, price=price / 100),
        engine=engine,
        members=delivery.size,
    )
    stopped = StoppedBy.INTERRUPTED if ranked.interrupted else ended_by(outcome)
    finished = finish(
        outcome,
        delivery,
        exported=best_so_far.exported,
        interrupted=stopped is StoppedBy.INTERRUPTED,
        sink=sink,
    )
    report = conclude(
        finished,
        task=task,
        candidates=candidates,
        ranked=ranked,
        stopped=stopped,
        learn=learn,
        thumbnails=thumbnails,
        budget=budget,
        objective=objective,
        began=began,
        started_after=started_after,
        ranked_after=ranked_after,
        command=command,
        settings={name: str(value) for name, value in settings.items()} | {"top_k": str(top_k), "device": device},
        seed=seed,
        workdir=workdir,
        sink=sink,
    )
    return SearchResult.of(report, workdir=workdir, seconds=time.monotonic() - began)
