"""From a ranking to models where labels are known: trials, joined fits, report."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.events import discard
from vlmsel_auto.models import zoo
from vlmsel_auto.pipeline.affordable import charges_of
from vlmsel_auto.pipeline.best_so_far import BestSoFar
from vlmsel_auto.pipeline.conclude import conclude, ended_by
from vlmsel_auto.pipeline.finish import Delivery, finish
from vlmsel_auto.pipeline.rank import Ranked
from vlmsel_auto.pipeline.result import SearchResult
from vlmsel_auto.pipeline.run import Run
from vlmsel_auto.pipeline.time_shares import joining_seconds, left_for_trials
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Budget, StoppedBy
from vlmsel_auto.study.study import run_study
from vlmsel_auto.tuning.runner import TrialRunner


def finish_with_labels(run: Run, ranked: Ranked) -> SearchResult:
    """Run the study of a search that has a ranking, export what came of it, and write the report."""
    request, session, engine = run.request, run.session, run.session.engine
    delivery = Delivery.of(run, ranked)
    task, ranked_after, latencies, joining = delivery.task, run.seconds, delivery.latencies(), 0.0
    if task.folds:
        images, members = len(task.labels), max(1, delivery.size)
        joining = joining_seconds([*latencies.values()], images=images, members=members)
    best_so_far = BestSoFar(sink=session.sink, task=task, candidates=delivery.candidates, workdir=run.workdir)
    sink = session.sink if isinstance(engine, InProcess) else discard
    charges = charges_of(session.objective, delivery.candidates, machine=session.machine, measured=latencies)
    runner = TrialRunner(
        task=task,
        candidates=delivery.candidates,
        load=partial(zoo.load, device=session.device, sink=sink),
        store=session.store,
        workdir=run.workdir,
        method_names=request.aim.methods,
        device=torch.device(session.device),
        seed=request.seed,
    )
    outcome = run_study(
        runner,
        ranking=ranked.ranking,
        budget=Budget(trials=1)
        if ranked.interrupted
        else left_for_trials(request.budget, spent=ranked_after, joining=joining),
        sink=best_so_far,
        engine=engine,
        storage=request.places.storage,
        top_k=request.aim.top_k,
        charges=charges,
        members=delivery.size,
        policy=replace(POLICY, price=session.price),
    )
    stopped = StoppedBy.INTERRUPTED if ranked.interrupted else ended_by(outcome)
    interrupted = stopped is StoppedBy.INTERRUPTED
    finished = finish(
        outcome, delivery, exported=best_so_far.exported, interrupted=interrupted, sink=session.sink
    )  # fmt: skip
    return conclude(run, ranked, finished, stopped=stopped, ranked_after=ranked_after)
