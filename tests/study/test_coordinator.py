"""The coordinator of a search: what it tells after each trial, and what is left of its budget."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.study_world import NAMES, Search, candidates, digits_folder, ranking, search, study_of, task
from vlmsel_auto.engines.engine import Ticket
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.events import Event, RankingReady, Sink, TrialFinished, TrialStarted, discard
from vlmsel_auto.models import zoo
from vlmsel_auto.planning.curves import Curve, forecast
from vlmsel_auto.planning.folds import fold_ease
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Budget, Candidate, StoppedBy, TrialOrigin, TrialState
from vlmsel_auto.study.coordinator import Coordinator, TrialAtWorker
from vlmsel_auto.study.dispatch import Dispatch
from vlmsel_auto.study.journal import open_study
from vlmsel_auto.study.results import Results
from vlmsel_auto.tuning.methods import FINETUNE, PROBE
from vlmsel_auto.tuning.runner import Trial

__all__ = ["candidates", "digits_folder", "search", "task"]  # fixtures


def test_each_trial_makes_the_ranking_anew_and_the_last_one_is_the_outcomes(search: Search) -> None:
    heard: list[Event] = []
    outcome = search(2, sink=heard.append)
    assert outcome.stopped_by is StoppedBy.BUDGET
    order = [type(each) for each in heard if isinstance(each, (TrialFinished, RankingReady))]
    assert order == 2 * [TrialFinished, RankingReady]
    first, last = (each.ranking for each in heard if isinstance(each, RankingReady))
    assert first != last
    assert outcome.ranking is last  # and is not made once more
    assert all(each.fidelity == 1.0 and each.cost == each.seconds for each in outcome.results)


def test_a_zero_shot_baseline_that_has_no_time_is_not_tried_for_ever(search: Search) -> None:
    def slow(candidate: Candidate) -> object:
        time.sleep(0.2)
        return zoo.load(candidate)

    policy = replace(POLICY, late_model=0.1)
    outcome = search(seconds=1e-3, load=slow, methods=("zero_shot", "probe"), policy=policy)
    assert [each.out_of_time for each in outcome.results] == [True]
    assert outcome.best is None
    assert outcome.stopped_by is StoppedBy.BUDGET


def stopping(how: type[BaseException]) -> Sink:
    def sink(event: Event) -> None:
        if isinstance(event, TrialStarted):
            raise how

    return sink


def test_a_zero_shot_baseline_that_was_killed_may_be_late_as_one_of_a_new_search(search: Search) -> None:
    with pytest.raises(SystemExit):
        search(1, methods=None, sink=stopping(SystemExit))
    outcome = search(methods=None, seconds=1e-3)
    assert [(each.origin, each.state) for each in outcome.results] == [(TrialOrigin.ZERO_SHOT, TrialState.COMPLETE)]
    assert outcome.best == outcome.results[0]
    assert outcome.stopped_by is StoppedBy.BUDGET


def test_who_asks_to_end_just_after_a_trial_was_taken_leaves_none_running(search: Search, tmp_path: Path) -> None:
    for times in range(1, 4):
        outcome = search(1, sink=stopping(KeyboardInterrupt))
        assert outcome.stopped_by is StoppedBy.INTERRUPTED
        assert [each.state.name for each in study_of(tmp_path).trials] == [*times * ["FAIL"], "WAITING"]
    outcome = search(1)
    assert [(each.number, each.state) for each in outcome.results] == [(3, TrialState.COMPLETE)]


def test_trials_that_run_are_taken_from_the_budget_and_the_ranking_is_that_of_finished_ones(
    search: Search, tmp_path: Path
) -> None:
    outcome = search(1, methods=("probe", "finetune"))
    (probe,) = outcome.results
    results = Results(workdir=tmp_path)
    results.adopt(probe)
    with open_study(outcome.runner) as study:
        now = Coordinator(
            plan=outcome.plan, ranking=ranking(), budget=Budget(trials=5, seconds=500), deadline=time.monotonic() + 500,
            dispatch=Dispatch(engine=InProcess(), runner=outcome.runner), study=study, results=results, sink=discard,
        )  # fmt: skip
        assert now.left().trials == 4
        assert now.left().seconds == pytest.approx(500, abs=60)
        study.queue(NextTrial(candidate=NAMES[1], method=PROBE.name, point={}, origin=TrialOrigin.PLANNED, why="told"))
        begun = study.take()
        trial = Trial(number=begun.number, spec=now.runner.spec(PROBE.name, NAMES[1], {}))
        now.running[Ticket(1)] = TrialAtWorker(taken=begun, trial=trial, curve=[], reached=0)
        assert now.left().trials == 3
        assert len(now.imagined()) == len(now.history()) + 1
        made = now.updated()
        assert now.updated() is made
        results.adopt(replace(probe, number=probe.number + 1, validation=0.1))
        assert now.updated() is not made
        ease = fold_ease(now.history())
        fold = max(range(len(ease)), key=lambda each: abs(ease[each].metric))
        tower = replace(trial, spec=now.runner.spec(FINETUNE.name, NAMES[1], {}, fold=fold))
        planned = replace(begun.planned, method=FINETUNE.name, fold=fold)
        now.running = {
            Ticket(1): TrialAtWorker(taken=replace(begun, planned=planned), trial=tower, curve=[0.5], reached=0)
        }
        level = Curve(values=(0.5 - ease[fold].metric,), epochs=tower.spec.epochs)  # as on all folds
        assert now.imagined()[-1].validation == pytest.approx(forecast(level).mean)
        assert ease[fold].metric != 0
