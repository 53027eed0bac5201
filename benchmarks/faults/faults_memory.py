"""Resident memory of a study over many trials that cost nothing; see faults_cases.py.

The trials are the study's own in everything (planner, Optuna, journal, files of results) but their training.
"""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from vlmsel_auto.cache import Store
from vlmsel_auto.events import Event, TrialFinished
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import (
    Basis,
    Budget,
    Interval,
    RankedCandidate,
    Ranking,
    TrialResult,
    TrialState,
)
from vlmsel_auto.study.study import run_study
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tuning.runner import Trial, TrialRunner


def free_trial(_: TrialRunner, trial: Trial, **_more: object) -> TrialResult:
    """A result that depends on the trial alone."""
    spec, number = trial.spec, trial.number
    value = 0.5 + (hash((spec.candidate, number)) % 1000) / 4000
    return TrialResult(
        number=number, spec=spec, state=TrialState.COMPLETE, origin=trial.origin, validation=value, test=None,
        curve=(value,) * spec.epochs, epochs_run=spec.epochs, seconds=0.01, soft_validation=value,
        validation_images=40, kept_epoch=spec.epochs, fidelity=1.0, cost=0.01,
    )  # fmt: skip


def main() -> None:
    """Write the megabytes after every hundred trials."""
    folder, workdir, trials, out = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    candidates = mini_zoo()
    task = load_task(folder, views=[each.view for each in candidates], workdir=workdir)
    ranked = tuple(
        RankedCandidate(
            candidate=each.id, score=-place / 10, sd=0.7, prior=None, evidence=None, p_best=0.05, p_top5=0.25,
            rank_interval=Interval(low=1, high=20), basis=Basis.NOTHING,
        )
        for place, each in enumerate(candidates)
    )  # fmt: skip
    setattr(TrialRunner, "run", free_trial)  # noqa: B010 - in the place of training
    megabytes: dict[int, float] = {}
    finished = 0

    def sink(event: Event) -> None:
        nonlocal finished
        if isinstance(event, TrialFinished):
            finished += 1
            if finished % 100 == 0:
                gc.collect()
                megabytes[finished] = round(psutil.Process().memory_info().rss / 2**20, 1)
                out.write_text(json.dumps(megabytes), "utf-8")

    runner = TrialRunner(
        task=task, candidates=candidates, load=zoo.load, store=Store(workdir / "targets"), workdir=workdir
    )  # fmt: skip
    outcome = run_study(
        runner, ranking=Ranking(task="digits", ranked=ranked), budget=Budget(trials=trials + 1), sink=sink,
        policy=replace(POLICY, price=-1.0),  # there is always another trial worth its time
    )  # fmt: skip
    print(len(outcome.results), outcome.stopped_by)


if __name__ == "__main__":
    main()
