"""The loop of a search: how much time its trials leave to the fit on all labels."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.study_world import NAMES, candidates, digits_folder, ranking, task
from vlmsel_auto.cache import Store
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.events import discard
from vlmsel_auto.models import zoo
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Budget, Candidate, Task
from vlmsel_auto.study.dispatch import Dispatch
from vlmsel_auto.study.loop import Search
from vlmsel_auto.study.opening import open_study
from vlmsel_auto.study.results import Results
from vlmsel_auto.study.runner import TrialRunner
from vlmsel_auto.study.study import run_study
from vlmsel_auto.tuning.methods import FINETUNE

__all__ = ["candidates", "digits_folder", "task"]  # fixtures


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, 1.3 * 10 * 5 / 4),  # the fit takes what the trial took on four of five parts, and a margin
        ({"on_all_labels": True}, 0.0),  # an earlier run has done it
        ({"cost": 300.0}, 0.0),  # too large a part of the budget
    ],
    ids=["to come", "done", "too dear"],
)
def test_trials_end_in_time_for_the_leading_towers_fit_on_all_labels(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path, change: dict[str, float | bool], kept: float
) -> None:
    runner = TrialRunner(
        task=task, table={each.id: each for each in candidates}, methods={FINETUNE.name: FINETUNE}, load=zoo.load,
        store=Store(tmp_path / "targets"), workdir=tmp_path, device=torch.device("cpu"), train_shots=None,
        images_per_trial=150, seed=0,
    )  # fmt: skip
    outcome = run_study(
        task=task, candidates=candidates, ranking=ranking(), budget=Budget(trials=1), workdir=tmp_path, load=zoo.load,
        methods=(FINETUNE.name,), images_per_trial=150,
    )  # fmt: skip
    results = Results(workdir=tmp_path)
    (tower,) = (each for each in outcome.results if each.number == outcome.best.number)
    results.adopt(replace(tower, **{"cost": 10.0, **change}))
    deadline = time.monotonic() + 500
    with open_study(task=task, names=sorted(NAMES), methods=[FINETUNE], workdir=tmp_path, seed=0, done=()) as study:
        search = Search(
            plan=outcome.plan, ranking=ranking(), budget=Budget(seconds=500), deadline=deadline,
            dispatch=Dispatch(engine=InProcess(), runner=runner), study=study, results=results, sink=discard,
        )  # fmt: skip
        assert search.end() == pytest.approx(deadline - kept)
        assert search.left().seconds == pytest.approx(500 - kept, abs=5.0)


def test_a_floor_that_has_no_time_is_not_tried_for_ever(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    def slow(candidate: Candidate) -> object:
        time.sleep(0.2)
        return zoo.load(candidate)

    outcome = run_study(
        task=task, candidates=candidates, ranking=ranking(), budget=Budget(seconds=1e-3), workdir=tmp_path, load=slow,
        methods=("zero_shot", "probe"), policy=replace(POLICY, late_model=0.1),
    )  # fmt: skip
    assert [each.out_of_time for each in outcome.results] == [True]
    assert outcome.best is None
    assert outcome.stopped_by == "budget"
