"""The loop of a search: what it tells after each trial."""

import time
from dataclasses import replace
from pathlib import Path

from helpers.study_world import candidates, digits_folder, ranking, task
from vlmsel_auto.events import Event, RankingReady, TrialFinished
from vlmsel_auto.models import zoo
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Budget, Candidate, StoppedBy, Task
from vlmsel_auto.study.study import run_study

__all__ = ["candidates", "digits_folder", "task"]  # fixtures


def test_each_trial_makes_the_ranking_anew_and_the_last_one_is_the_outcomes(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    heard: list[Event] = []
    outcome = run_study(
        task=task, candidates=candidates, ranking=ranking(), budget=Budget(trials=2), workdir=tmp_path, load=zoo.load,
        methods=("probe",), sink=heard.append,
    )  # fmt: skip
    assert outcome.stopped_by is StoppedBy.BUDGET
    order = [type(each) for each in heard if isinstance(each, (TrialFinished, RankingReady))]
    assert order == 2 * [TrialFinished, RankingReady]
    first, last = (each.ranking for each in heard if isinstance(each, RankingReady))
    assert first != last
    assert outcome.ranking is last  # and is not made once more


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
    assert outcome.stopped_by is StoppedBy.BUDGET
