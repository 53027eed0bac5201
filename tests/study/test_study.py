import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from helpers.nearest_mean import ROW
from helpers.stored_results import read_results
from helpers.study_world import EAGER, NAMES, Search, candidates, digits_folder, search, study_of, task
from vlmsel_auto.errors import BudgetError, CandidateError, InputError, TrialUnavailable, WorkdirError
from vlmsel_auto.events import Event, RankingReady, TrialFinished, TrialStarted
from vlmsel_auto.models import zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.reporting.formatting import spec_text
from vlmsel_auto.tuning import methods
from vlmsel_auto.tuning.checkpoints import load_trial
from vlmsel_auto.tuning.methods import METHODS

__all__ = ["candidates", "digits_folder", "search", "task"]  # fixtures

BOTH = ("probe", "finetune")


def test_budget_of_trials_counts_all_runs_and_finished_trials_stay(search: Search, tmp_path: Path) -> None:
    plan = {"methods": BOTH, "images_per_trial": 100, "top_k": 2, "policy": EAGER}
    first = search(2, **plan)
    assert first.stopped_by == "budget"
    assert [each.number for each in first.results] == [0, 1]
    assert first.results[0].spec.candidate == NAMES[0]
    events: list[Event] = []
    second = search(4, **plan, sink=events.append)
    assert second.results[:2] == first.results
    assert len(second.results) == 4
    assert [each.resumed for each in events if isinstance(each, TrialFinished)] == [True, True, False, False]
    assert all(each.ranking.task == "digits" for each in events if isinstance(each, RankingReady))
    assert read_results(tmp_path) == second.results
    again = search(4, **plan)
    assert (again.results, again.best) == (second.results, second.best)


def test_methods_order_and_weights(search: Search, task: Task, tmp_path: Path) -> None:
    events: list[Event] = []
    outcome = search(7, methods=BOTH, images_per_trial=100, top_k=2, sink=events.append)
    assert {each.spec.method for each in outcome.results} == set(BOTH)
    started = next(each for each in events if isinstance(each, TrialStarted))
    assert (started.why, started.spec.method) == ("predicted rank 1", "probe")
    complete = [each for each in outcome.results if each.state == "complete"]
    assert all(each.test is not None for each in complete)
    assert outcome.best in complete
    kept = load_trial(tmp_path, outcome.best)
    assert kept.weight.shape[0] == kept.bias.shape[0] == task.n_classes
    assert isinstance(study_of(tmp_path).trials[0].params["candidate"], int)
    told = [set(each.intermediate_values) for each in study_of(tmp_path).trials]
    assert set().union(*told) == {1, 2}  # rungs of three epochs; at the last of all nothing is pruned
    assert study_of(tmp_path).user_attrs["candidates"] == sorted(NAMES)


def test_towers_are_scored_on_the_folds_in_turn(search: Search, task: Task, tmp_path: Path) -> None:
    assert len(task.folds) == 8
    outcome = search(3, methods=("finetune",), top_k=3, images_per_trial=50, policy=EAGER)
    assert [each.spec.fold for each in outcome.results] == [0, 1, 2]
    for each in outcome.results:
        part = np.sort(task.folds[each.spec.fold])
        logits = load_trial(tmp_path, each).held_out_logits
        assert each.validation == (logits.argmax(axis=1) == task.labels[part]).mean()
        assert each.validation_images == len(part)


def test_missing_weights_fail_their_trial_and_not_the_run(search: Search) -> None:
    def load(candidate: Candidate) -> LoadedModel:
        if candidate.id == NAMES[0]:
            raise TrialUnavailable(f"weights are missing, but got {candidate.id!r}")
        return zoo.load(candidate)

    outcome = search(4, load=load, top_k=2)
    assert outcome.results[0].state == "failed"
    assert list(outcome.failures) == [NAMES[0]]
    assert "weights are missing" in outcome.failures[NAMES[0]]
    assert outcome.best is not None
    assert [each.spec.candidate for each in outcome.results].count(NAMES[0]) == 1


def test_nothing_loads(search: Search, candidates: tuple[Candidate, ...]) -> None:
    def load(candidate: Candidate) -> LoadedModel:
        raise RuntimeError(f"no driver for {candidate.id}")

    outcome = search(3, candidates=candidates[:2], load=load)
    assert outcome.best is None
    assert [each.state for each in outcome.results] == ["failed"] * 2  # each once
    assert outcome.results[0].reason == f"RuntimeError: no driver for {NAMES[0]}"


def test_time_budget_holds(search: Search) -> None:
    begun = time.monotonic()
    outcome = search(seconds=4.0, methods=("finetune",), images_per_trial=50_000)
    assert outcome.stopped_by == "budget"
    assert time.monotonic() - begun < 10.0  # 5 % on an idle machine; tests run on busy ones
    assert outcome.results


def test_interrupt_ends_cleanly_and_resumes(search: Search) -> None:
    def sink(event: Event) -> None:
        if isinstance(event, TrialStarted) and event.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    outcome = search(3, sink=sink)
    assert outcome.stopped_by == "interrupted"
    assert signal.getsignal(signal.SIGTERM) == handler
    assert [each.number for each in outcome.results] == [0]
    rest = search(3)
    assert rest.stopped_by == "budget"
    assert len(rest.results) == 3
    assert rest.results[1].spec.candidate == NAMES[1]


def test_refusals(search: Search, candidates: tuple[Candidate, ...]) -> None:
    with pytest.raises(BudgetError, match=r"must be positive.*got 0"):
        search(0)
    with pytest.raises(InputError, match="at least one method is needed"):
        search(1, methods=())
    with pytest.raises(CandidateError, match="at least one"):
        search(1, candidates=())
    search(1)
    with pytest.raises(WorkdirError, match="other candidates"):
        search(1, candidates=candidates[:2])


def test_two_processes_cannot_share_a_work_directory(search: Search, tmp_path: Path) -> None:
    with FileLock(tmp_path / "study.lock"), pytest.raises(WorkdirError, match="Another process"):
        search(1)


def test_a_search_begins_with_the_zero_shot_baseline(search: Search, tmp_path: Path) -> None:
    loaded: list[str] = []

    def load(candidate: Candidate) -> LoadedModel:
        loaded.append(candidate.id)
        return zoo.load(candidate)

    outcome = search(1, load=load, methods=None, images_per_trial=100)
    baseline, probe = outcome.results
    assert (baseline.number, baseline.origin.label) == (0, "zero-shot")
    assert (baseline.spec.method, baseline.spec.candidate) == ("zero_shot", NAMES[0])
    assert (baseline.epochs_run, baseline.validation) == (0, baseline.start)
    assert baseline.validation == probe.start  # the probe of the same candidate begins there
    assert outcome.best == probe
    assert loaded == [NAMES[0]]  # the probe finds the embeddings
    assert load_trial(tmp_path, baseline).visual is None


def test_without_time_for_more_the_zero_shot_baseline_is_what_the_user_gets(search: Search) -> None:
    outcome = search(5, methods=("zero_shot",))
    assert outcome.stopped_by == "exhausted"
    assert outcome.best.spec.method == "zero_shot"
    with pytest.raises(WorkdirError, match="other methods"):
        search(5)


def test_a_method_is_a_module_and_a_row(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", (*METHODS, ROW))
    monkeypatch.setitem(methods._BY_NAME, ROW.name, ROW)
    outcome = search(6, methods=("zero_shot", ROW.name), top_k=2, policy=EAGER)
    assert [each.state for each in outcome.results] == ["complete"] * 7
    assert {each.spec.method for each in outcome.results[1:]} == {ROW.name}
    points = {each.spec.settings["shrinkage"] for each in outcome.results[1:]}
    assert 0.5 in points  # the default
    assert len(points) > 1  # and others, near the best or sampled
    assert outcome.best.spec.method == ROW.name
    assert ROW.label in spec_text(outcome.best.spec)
