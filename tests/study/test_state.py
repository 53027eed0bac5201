"""A running search: what is left of its budget, and that a ranking is made once for the same trials."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.study_world import NAMES, candidates, digits_folder, ranking, task
from vlmsel_auto.engines.engine import Ticket
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.events import discard
from vlmsel_auto.models import zoo
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.records import Budget, Candidate, Task, TrialOrigin
from vlmsel_auto.study.dispatch import Dispatch
from vlmsel_auto.study.opening import open_study
from vlmsel_auto.study.results import Results
from vlmsel_auto.study.state import RunningHere, Search
from vlmsel_auto.study.study import run_study
from vlmsel_auto.tuning.methods import PROBE

__all__ = ["candidates", "digits_folder", "task"]  # fixtures


def test_trials_that_run_are_taken_from_the_budget_and_the_ranking_is_that_of_finished_ones(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    outcome = run_study(
        task=task, candidates=candidates, ranking=ranking(), budget=Budget(trials=1), workdir=tmp_path, load=zoo.load,
        methods=(PROBE.name,),
    )  # fmt: skip
    (probe,) = outcome.results
    results = Results(workdir=tmp_path)
    results.adopt(probe)
    with open_study(task=task, names=sorted(NAMES), methods=[PROBE], workdir=tmp_path, seed=0, done=()) as study:
        search = Search(
            plan=outcome.plan, ranking=ranking(), budget=Budget(trials=5, seconds=500), deadline=time.monotonic() + 500,
            dispatch=Dispatch(engine=InProcess(), runner=outcome.runner), study=study, results=results, sink=discard,
        )  # fmt: skip
        assert (search.left().trials, search.free) == (4, 1)
        assert search.left().seconds == pytest.approx(500, abs=60)
        study.queue(NextTrial(candidate=NAMES[1], method=PROBE.name, point={}, origin=TrialOrigin.PLANNED, why="told"))
        begun = study.take()
        search.running[Ticket(1)] = RunningHere(
            trial=begun, spec=search.runner.spec(begun.method, begun.candidate, {}), curve=[], reached=0
        )
        assert (search.left().trials, search.free) == (3, 0)
        assert len(search.imagined()) == len(search.history()) + 1
        made = search.updated()
        assert search.updated() is made
        results.adopt(replace(probe, number=probe.number + 1, validation=0.1))
        assert search.updated() is not made
