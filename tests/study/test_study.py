import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from helpers.study_world import NAMES, SCRIPT, candidates, digits_folder, ranking, task
from vlmsel_auto.errors import BudgetError, CandidateError, InputError, TrialUnavailable, WorkdirError
from vlmsel_auto.events import Event, RankingReady, TrialFinished, TrialStarted
from vlmsel_auto.models import zoo
from vlmsel_auto.planning.history import Left, Tried, updated_ranking
from vlmsel_auto.planning.next_trial import next_trial
from vlmsel_auto.records import Budget, Candidate, Task, TrialOrigin, TrialResult, TrialState
from vlmsel_auto.study.optuna_study import JOURNAL
from vlmsel_auto.study.study import run_study
from vlmsel_auto.tuning.checkpoints import has_paused, has_weights, load_trial, read_results

__all__ = ["candidates", "digits_folder", "task"]  # fixtures

BOTH = ("probe", "finetune")


def study_of(workdir: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(workdir / JOURNAL)))
    return optuna.load_study(study_name="vlmsel-auto", storage=storage)


def test_budget_of_trials_counts_all_runs_and_finished_trials_stay(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    arguments = {"task": task, "candidates": candidates, "ranking": ranking(), "workdir": tmp_path, "load": zoo.load}
    first = run_study(**arguments, budget=Budget(trials=2), methods=BOTH, images_per_trial=100, top_k=2)
    assert first.stopped_by == "budget"
    assert [each.number for each in first.results] == [0, 1]
    assert first.results[0].spec.candidate == NAMES[0]
    events: list[Event] = []
    second = run_study(
        **arguments, budget=Budget(trials=4), methods=BOTH, images_per_trial=100, top_k=2, sink=events.append
    )
    assert second.results[:2] == first.results
    assert len(second.results) == 4
    assert [each.resumed for each in events if isinstance(each, TrialFinished)] == [True, True, False, False]
    assert all(each.ranking.task == "digits" for each in events if isinstance(each, RankingReady))
    assert read_results(tmp_path) == second.results
    again = run_study(**arguments, budget=Budget(trials=4), methods=BOTH, images_per_trial=100, top_k=2)
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
        audits=1,
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
    assert len(weights) <= 3
    kept = load_trial(tmp_path, outcome.best.number)
    assert kept.weight.shape[0] == kept.bias.shape[0] == task.n_classes
    parameters = study_of(tmp_path).trials[0].params
    assert isinstance(parameters["candidate"], int)
    assert study_of(tmp_path).user_attrs["candidates"] == sorted(NAMES)


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
    kept = load_trial(tmp_path, outcome.best.number)
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
    def load(candidate: Candidate) -> zoo.LoadedModel:
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
    def load(candidate: Candidate) -> zoo.LoadedModel:
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
    assert [each.state for each in outcome.results] == ["failed"] * 3
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


def test_kill_minus_nine_and_resume(digits_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(digits_folder), str(tmp_path / "w"), ",".join(NAMES), "5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed_in = "started 2 "
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(killed_in):
                time.sleep(0.05)
                process.kill()
    assert process.returncode == -signal.SIGKILL
    before = {each.number: each for each in read_results(tmp_path / "w")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("stopped budget")
    after = {each.number: each for each in read_results(tmp_path / "w")}
    assert {number: after[number] for number in before} == before
    assert {0, 1} <= set(before)
    assert len(after) == 5
    trials = study_of(tmp_path / "w").trials
    assert not [each for each in trials if each.state == optuna.trial.TrialState.RUNNING]
    retries = [each.user_attrs["retry_of"] for each in trials if "retry_of" in each.user_attrs]
    assert len(retries) == len(set(retries))
    assert len([line for line in done.stdout.splitlines() if line.startswith("resumed")]) == len(before)


def test_kill_minus_nine_inside_a_long_trial_goes_on_from_its_last_epoch(digits_folder: Path, tmp_path: Path) -> None:
    script = SCRIPT.replace(
        "def sink(event):",
        """from vlmsel_auto.tuning import module as epochs
epochs._SAVE_EVERY = 0.0
def sink(event):
    if type(event).__name__ == "TrialEpoch":
        print("epoch", event.number, event.epoch, flush=True)""",
    ).replace("images_per_trial=150", "images_per_trial=300")
    script = script.replace('methods=("probe", "finetune"),', "methods=('finetune',),")
    command = [sys.executable, "-c", script, str(digits_folder), str(tmp_path / "w"), NAMES[0], "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 0 4"):
                process.kill()
    assert process.returncode == -signal.SIGKILL
    assert has_paused(tmp_path / "w", 0)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    result = read_results(tmp_path / "w")[0]
    assert (result.number, result.continues, result.state) == (1, 0, "complete")
    assert result.epochs_run == len(result.curve) == result.spec.epochs
    assert done.stdout.splitlines()[1].split()[2] in {"4", "5"}  # the first epoch that it ran
    assert not has_paused(tmp_path / "w", 0)


def test_a_lost_journal_is_written_anew_from_the_results(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    arguments = {"task": task, "candidates": candidates, "ranking": ranking(), "load": zoo.load, "workdir": tmp_path}
    first = run_study(**arguments, budget=Budget(trials=2), methods=("probe",))
    (tmp_path / JOURNAL).unlink()
    again = run_study(**arguments, budget=Budget(trials=3), methods=("probe",))
    assert again.results[:2] == first.results
    assert [each.number for each in again.results] == [0, 1, 2]
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-7])  # a machine that went down inside a line
    last = run_study(**arguments, budget=Budget(trials=3), methods=("probe",))
    assert last.results == again.results


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
        updated_ranking(outcome.plan, ranking(), history)
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


def test_a_zombie_is_queued_again_once_and_adopted_when_it_had_finished(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    arguments = {"task": task, "candidates": candidates, "ranking": ranking(), "load": zoo.load, "workdir": tmp_path}
    first = run_study(**arguments, budget=Budget(trials=1), methods=("probe",))
    study = study_of(tmp_path)
    study.enqueue_trial({"candidate": 1, "method": "probe"}, user_attrs={"origin": "planned", "why": "test"})
    zombie = study.ask()
    zombie.suggest_int("candidate", 0, len(NAMES) - 1)
    zombie.suggest_categorical("method", ("probe",))
    second = run_study(**arguments, budget=Budget(trials=2), methods=("probe",))
    assert [each.number for each in second.results] == [0, 2]
    assert second.results[1].spec.candidate == sorted(NAMES)[1]
    states = [each.state.name for each in study_of(tmp_path).trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE"]
    finished = study_of(tmp_path).ask()  # killed after its result was written
    (tmp_path / "trials" / f"{finished.number:04d}").mkdir()
    record = json.loads((tmp_path / "trials" / "0000" / "result.json").read_text())
    record["number"] = finished.number
    (tmp_path / "trials" / f"{finished.number:04d}" / "result.json").write_text(json.dumps(record))
    third = run_study(**arguments, budget=Budget(trials=3), methods=("probe",))
    assert [each.number for each in third.results] == [0, 2, 3]
    assert third.results[2].validation == first.results[0].validation
    assert study_of(tmp_path).trials[3].state.name == "COMPLETE"


def test_a_trial_that_kills_the_process_twice_is_given_up(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    arguments = {"task": task, "candidates": candidates, "ranking": ranking(), "load": zoo.load, "workdir": tmp_path}
    run_study(**arguments, budget=Budget(trials=1), methods=("probe",))
    study = study_of(tmp_path)
    study.enqueue_trial({"candidate": 1, "method": "probe"}, user_attrs={"origin": "planned", "attempt": 2})
    zombie = study.ask()
    zombie.suggest_int("candidate", 0, len(NAMES) - 1)
    zombie.suggest_categorical("method", ("probe",))
    outcome = run_study(**arguments, budget=Budget(trials=2), methods=("probe",))
    assert outcome.results[1].state == "failed"
    assert "killed 2 times" in outcome.results[1].reason


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


def test_a_search_begins_with_the_floor(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> None:
    outcome = run_study(
        task=task,
        candidates=candidates,
        ranking=ranking(),
        budget=Budget(trials=1),
        workdir=tmp_path,
        load=zoo.load,
        images_per_trial=100,
    )
    floor, probe = outcome.results
    assert (floor.number, floor.origin, floor.spec.method, floor.spec.candidate) == (0, "floor", "zero_shot", NAMES[0])
    assert (floor.epochs_run, floor.validation) == (0, floor.start)
    assert floor.validation == probe.start  # the probe of the same candidate begins there
    assert outcome.best == probe
    assert probe.seconds < floor.seconds  # the embeddings are there
    kept = load_trial(tmp_path, 0)
    assert kept.visual is None


def test_without_time_for_more_the_floor_is_what_the_user_gets(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    arguments = {"task": task, "candidates": candidates, "ranking": ranking(), "load": zoo.load, "workdir": tmp_path}
    outcome = run_study(**arguments, budget=Budget(trials=5), methods=("zero_shot",))
    assert outcome.stopped_by == "exhausted"
    assert outcome.best is not None
    assert outcome.best.spec.method == "zero_shot"
    with pytest.raises(WorkdirError, match="other methods"):
        run_study(**arguments, budget=Budget(trials=5), methods=("probe",))
