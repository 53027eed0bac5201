import os
import signal
import time
from pathlib import Path

import numpy as np
import optuna
import pytest

from helpers.nearest_mean import ROW
from helpers.stored_results import read_results
from helpers.study_world import EAGER, NAMES, candidates, digits_folder, ranking, run_study, study_of, task
from vlmsel_auto.errors import BudgetError, CandidateError, InputError, TrialUnavailable, WorkdirError
from vlmsel_auto.events import Event, RankingReady, TrialFinished, TrialStarted
from vlmsel_auto.models import zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.planning.next_trial import next_trial
from vlmsel_auto.planning.trial_evidence import TrialEvidence
from vlmsel_auto.planning.trials import Left, Tried
from vlmsel_auto.records import Budget, Candidate, Task, TrialOrigin, TrialResult, TrialState
from vlmsel_auto.reporting.formatting import spec_text
from vlmsel_auto.tuning import methods
from vlmsel_auto.tuning.checkpoints import has_weights, load_trial
from vlmsel_auto.tuning.methods import METHODS

__all__ = ["candidates", "digits_folder", "task"]  # fixtures

BOTH = ("probe", "finetune")


def test_budget_of_trials_counts_all_runs_and_finished_trials_stay(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    arguments = {"task": task, "candidates": candidates, "ranking": ranking(), "workdir": tmp_path, "load": zoo.load}
    plan = {"methods": BOTH, "images_per_trial": 100, "top_k": 2, "policy": EAGER}
    first = run_study(**arguments, budget=Budget(trials=2), **plan)
    assert first.stopped_by == "budget"
    assert [each.number for each in first.results] == [0, 1]
    assert first.results[0].spec.candidate == NAMES[0]
    events: list[Event] = []
    second = run_study(**arguments, budget=Budget(trials=4), **plan, sink=events.append)
    assert second.results[:2] == first.results
    assert len(second.results) == 4
    assert [each.resumed for each in events if isinstance(each, TrialFinished)] == [True, True, False, False]
    assert all(each.ranking.task == "digits" for each in events if isinstance(each, RankingReady))
    assert read_results(tmp_path) == second.results
    again = run_study(**arguments, budget=Budget(trials=4), **plan)
    assert again.results == second.results
    assert again.best == second.best


def test_methods_order_and_weights(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> None:
    events: list[Event] = []
    outcome = run_study(
        task=task,
        candidates=candidates,
        ranking=ranking(),
        budget=Budget(trials=7),
        workdir=tmp_path,
        load=zoo.load,
        methods=BOTH,
        images_per_trial=100,
        top_k=2,
        sink=events.append,
    )
    assert {each.spec.method for each in outcome.results} == {"probe", "finetune"}
    started = [each for each in events if isinstance(each, TrialStarted)]
    assert started[0].why == "predicted rank 1"
    assert started[0].spec.method == "probe"
    assert all(each.test is not None for each in outcome.results if each.state == "complete")
    assert outcome.best is not None
    complete = [each for each in outcome.results if each.state == "complete"]
    assert outcome.best in complete
    weights = [each.number for each in outcome.results if has_weights(tmp_path, each.number)]
    assert outcome.best.number in weights
    assert len(weights) <= 3 + 5  # the leaders, and the best of each candidate that an ensemble may want
    kept = load_trial(tmp_path, outcome.best)
    assert kept.weight.shape[0] == kept.bias.shape[0] == task.n_classes
    parameters = study_of(tmp_path).trials[0].params
    assert isinstance(parameters["candidate"], int)
    assert study_of(tmp_path).user_attrs["candidates"] == sorted(NAMES)


def test_towers_are_scored_on_the_folds_in_turn(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> None:
    assert len(task.folds) == 8
    outcome = run_study(
        task=task, candidates=candidates, ranking=ranking(), budget=Budget(trials=3), workdir=tmp_path, load=zoo.load,
        methods=("finetune",), top_k=3, images_per_trial=50, policy=EAGER,
    )  # fmt: skip
    assert [each.spec.fold for each in outcome.results] == [0, 1, 2]
    for each in outcome.results:
        part = np.sort(task.folds[each.spec.fold])
        logits = load_trial(tmp_path, each).held_out_logits
        assert logits is not None
        assert each.validation == (logits.argmax(axis=1) == task.labels[part]).mean()
        assert each.validation_images == len(part)


def test_the_exported_formula_gives_the_test_metric(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    outcome = run_study(
        task=task,
        candidates=candidates[:1],
        ranking=ranking(NAMES[:1]),
        budget=Budget(trials=2),
        workdir=tmp_path,
        load=zoo.load,
        methods=("finetune",),
        images_per_trial=150,
    )
    assert outcome.best is not None
    kept = load_trial(tmp_path, outcome.best)
    model = zoo.load(candidates[0])
    if kept.visual is not None:
        model.visual.load_state_dict(dict(kept.visual))
    embedded = model.embed(model.normalise(task.pixels.read(candidates[0].view, task.test))).numpy()
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    predicted = (kept.scale * unit @ kept.weight.T + kept.bias).argmax(axis=1)
    assert float((predicted == task.labels[task.test]).mean()) == outcome.best.test


def test_missing_weights_fail_their_trial_and_not_the_run(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    def load(candidate: Candidate) -> LoadedModel:
        if candidate.id == NAMES[0]:
            raise TrialUnavailable(f"weights are missing, but got {candidate.id!r}")
        return zoo.load(candidate)

    outcome = run_study(
        task=task,
        candidates=candidates,
        ranking=ranking(),
        budget=Budget(trials=4),
        workdir=tmp_path,
        load=load,
        methods=("probe",),
        top_k=2,
    )
    assert outcome.results[0].state == "failed"
    assert list(outcome.failures) == [NAMES[0]]
    assert "weights are missing" in outcome.failures[NAMES[0]]
    assert outcome.best is not None
    assert [each.spec.candidate for each in outcome.results].count(NAMES[0]) == 1


def test_nothing_loads(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> None:
    def load(candidate: Candidate) -> LoadedModel:
        raise RuntimeError(f"no driver for {candidate.id}")

    outcome = run_study(
        task=task,
        candidates=candidates[:2],
        ranking=ranking(NAMES[:2]),
        budget=Budget(trials=3),
        workdir=tmp_path,
        load=load,
        methods=("probe",),
    )
    assert outcome.best is None
    assert [each.state for each in outcome.results] == ["failed"] * 2  # each once
    assert outcome.results[0].reason == f"RuntimeError: no driver for {NAMES[0]}"


def test_time_budget_holds(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> None:
    begun = time.monotonic()
    outcome = run_study(
        task=task,
        candidates=candidates,
        ranking=ranking(),
        budget=Budget(seconds=6.0),
        workdir=tmp_path,
        load=zoo.load,
        methods=("finetune",),
        images_per_trial=50_000,
    )
    assert outcome.stopped_by == "budget"
    assert time.monotonic() - begun < 12.0  # 5 % on an idle machine; tests run on busy ones
    assert outcome.results


def test_interrupt_ends_cleanly_and_resumes(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> None:
    seen: list[Event] = []

    def sink(event: Event) -> None:
        seen.append(event)
        if isinstance(event, TrialStarted) and event.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    arguments = {"task": task, "candidates": candidates, "ranking": ranking(), "workdir": tmp_path, "load": zoo.load}
    handler = signal.getsignal(signal.SIGTERM)
    outcome = run_study(**arguments, budget=Budget(trials=3), methods=("probe",), sink=sink)
    assert outcome.stopped_by == "interrupted"
    assert signal.getsignal(signal.SIGTERM) == handler
    assert [each.number for each in outcome.results] == [0]
    rest = run_study(**arguments, budget=Budget(trials=3), methods=("probe",))
    assert rest.stopped_by == "budget"
    assert len(rest.results) == 3
    assert rest.results[1].spec.candidate == NAMES[1]


def test_interrupt_while_lightning_trains(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> None:
    def sink(event: Event) -> None:
        if type(event).__name__ == "TrialEpoch":
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    outcome = run_study(
        task=task,
        candidates=candidates,
        ranking=ranking(),
        budget=Budget(trials=3),
        workdir=tmp_path,
        load=zoo.load,
        methods=("finetune",),
        sink=sink,
        images_per_trial=200,
    )
    assert outcome.stopped_by == "interrupted"
    assert outcome.results == ()
    assert signal.getsignal(signal.SIGINT) == before
    states = [each.state for each in study_of(tmp_path).trials]
    assert states == [optuna.trial.TrialState.FAIL, optuna.trial.TrialState.WAITING]


def test_every_finished_trial_updates_the_ranking_cheaply(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    events: list[Event] = []
    outcome = run_study(
        task=task,
        candidates=candidates,
        ranking=ranking(),
        budget=Budget(trials=4),
        workdir=tmp_path,
        load=zoo.load,
        methods=("probe",),
        sink=events.append,
    )
    kinds = [type(each).__name__ for each in events]
    assert kinds.count("RankingReady") == len(outcome.results) == 4
    assert all(kinds[place + 1] == "RankingReady" for place, kind in enumerate(kinds) if kind == "TrialFinished")
    assert all(each.fidelity == 1.0 and each.cost == each.seconds for each in outcome.results)
    history = [tried for each in range(30) for tried in _history(outcome.results, each)]
    begun = time.process_time()
    for _ in range(5):
        TrialEvidence(outcome.plan, history).updated(ranking())
        next_trial(outcome.plan, history, left=Left(trials=10))
    assert (time.process_time() - begun) / 5 < 0.1


def _history(results: tuple[TrialResult, ...], seed: int) -> list[Tried]:
    return [
        Tried(
            candidate=each.spec.candidate,
            method="probe",
            origin=TrialOrigin.PLANNED,
            state=TrialState.COMPLETE,
            validation=each.validation,
            seconds=each.seconds,
            point={"learning_rate": seed / 30},
            number=1_000 * seed + each.number,
        )
        for each in results
    ]


def test_refusals(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> None:
    arguments = {"task": task, "ranking": ranking(), "load": zoo.load, "workdir": tmp_path}
    with pytest.raises(BudgetError, match=r"must be positive.*got 0"):
        run_study(**arguments, candidates=candidates, budget=Budget(trials=0))
    with pytest.raises(InputError, match="at least one method is needed"):
        run_study(**arguments, candidates=candidates, budget=Budget(trials=1), methods=())
    with pytest.raises(CandidateError, match="at least one"):
        run_study(**arguments, candidates=(), budget=Budget(trials=1))
    run_study(**arguments, candidates=candidates, budget=Budget(trials=1), methods=("probe",))
    with pytest.raises(WorkdirError, match="other candidates"):
        run_study(**arguments, candidates=candidates[:2], budget=Budget(trials=1), methods=("probe",))


def test_two_processes_cannot_share_a_work_directory(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / "study.lock"), pytest.raises(WorkdirError, match="Another process"):
        run_study(
            task=task,
            candidates=candidates,
            ranking=ranking(),
            load=zoo.load,
            workdir=tmp_path,
            budget=Budget(trials=1),
        )


def test_a_search_begins_with_the_zero_shot_baseline(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    loaded: list[str] = []

    def load(candidate: Candidate) -> LoadedModel:
        loaded.append(candidate.id)
        return zoo.load(candidate)

    outcome = run_study(
        task=task,
        candidates=candidates,
        ranking=ranking(),
        budget=Budget(trials=1),
        workdir=tmp_path,
        load=load,
        images_per_trial=100,
    )
    baseline, probe = outcome.results
    assert (baseline.number, baseline.origin.label) == (0, "zero-shot")
    assert (baseline.spec.method, baseline.spec.candidate) == ("zero_shot", NAMES[0])
    assert (baseline.epochs_run, baseline.validation) == (0, baseline.start)
    assert baseline.validation == probe.start  # the probe of the same candidate begins there
    assert outcome.best == probe
    assert loaded == [NAMES[0]]  # the probe finds the embeddings
    kept = load_trial(tmp_path, baseline)
    assert kept.visual is None


def test_without_time_for_more_the_zero_shot_baseline_is_what_the_user_gets(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    arguments = {"task": task, "candidates": candidates, "ranking": ranking(), "load": zoo.load, "workdir": tmp_path}
    outcome = run_study(**arguments, budget=Budget(trials=5), methods=("zero_shot",))
    assert outcome.stopped_by == "exhausted"
    assert outcome.best is not None
    assert outcome.best.spec.method == "zero_shot"
    with pytest.raises(WorkdirError, match="other methods"):
        run_study(**arguments, budget=Budget(trials=5), methods=("probe",))


def test_a_method_is_a_module_and_a_row(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "METHODS", (*METHODS, ROW))
    monkeypatch.setitem(methods._BY_NAME, ROW.name, ROW)
    outcome = run_study(
        task=task,
        candidates=candidates,
        ranking=ranking(),
        budget=Budget(trials=6),
        workdir=tmp_path,
        load=zoo.load,
        methods=("zero_shot", ROW.name),
        top_k=2,
        policy=EAGER,
    )
    assert [each.state for each in outcome.results] == ["complete"] * 7
    assert {each.spec.method for each in outcome.results[1:]} == {ROW.name}
    points = {each.spec.settings["shrinkage"] for each in outcome.results[1:]}
    assert 0.5 in points  # the default
    assert len(points) > 1  # and others, near the best or sampled
    assert outcome.best is not None
    assert outcome.best.spec.method == ROW.name
    assert ROW.label in spec_text(outcome.best.spec)
    again = run_study(
        task=task, candidates=candidates, ranking=ranking(), budget=Budget(trials=6), workdir=tmp_path, load=zoo.load,
        methods=("zero_shot", ROW.name), top_k=2, policy=EAGER,
    )  # fmt: skip
    assert again.results == outcome.results
