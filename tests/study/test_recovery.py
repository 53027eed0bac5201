import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from helpers.stored_results import read_results
from helpers.study_world import NAMES, SCRIPT, candidates, digits_folder, ranking, run_study, study_of, task
from vlmsel_auto.events import Event, Notice, TrialEpoch, TrialFinished
from vlmsel_auto.models import zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Budget, Candidate, StoppedBy, Task, TrialState
from vlmsel_auto.study.optuna_study import JOURNAL
from vlmsel_auto.study.study import StudyOutcome
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning.checkpoints import load_trial, read_result, save_result
from vlmsel_auto.tuning.paused import has_paused

__all__ = ["candidates", "digits_folder", "task"]  # fixtures


def killed_at(beginning: str, script: str, *words: object, after: float = 0.0) -> None:
    """A search in a process of its own, which is killed ``after`` it said a line that begins so."""
    command = [sys.executable, "-c", script, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(beginning):
                time.sleep(after)
                process.kill()
    assert process.returncode == -signal.SIGKILL


def gone_on(
    folder: Path, candidates: tuple[Candidate, ...], workdir: Path, *, trials: int, **more: object
) -> tuple[StudyOutcome, list[Event]]:
    """The same search again, in this process, and what it told."""
    heard: list[Event] = []
    task = load_task(folder, TaskOptions(shots=4), views=[each.view for each in candidates], workdir=workdir)
    names = tuple(each.id for each in candidates)
    arguments = {"methods": ("probe", "finetune"), "images_per_trial": 150, "members": 5, **more}
    outcome = run_study(
        task=task, candidates=candidates, ranking=ranking(names), budget=Budget(trials=trials), workdir=workdir,
        load=zoo.load, sink=heard.append, **arguments,
    )  # fmt: skip
    return outcome, heard


def test_kill_minus_nine_and_resume(digits_folder: Path, candidates: tuple[Candidate, ...], tmp_path: Path) -> None:
    workdir = tmp_path / "w"
    killed_at("started 2 ", SCRIPT, digits_folder, workdir, ",".join(NAMES), 5, after=0.05)
    before = {each.number: each for each in read_results(workdir)}
    outcome, heard = gone_on(digits_folder, candidates, workdir, trials=5)
    assert outcome.stopped_by is StoppedBy.BUDGET
    after = {each.number: each for each in read_results(workdir)}
    assert {number: after[number] for number in before} == before
    assert {0, 1} <= set(before)
    assert len(after) == 5
    trials = study_of(workdir).trials
    assert not [each for each in trials if each.state == optuna.trial.TrialState.RUNNING]
    retries = [each.user_attrs["retry_of"] for each in trials if "retry_of" in each.user_attrs]
    assert len(retries) == len(set(retries))
    assert len([each for each in heard if isinstance(each, TrialFinished) and each.resumed]) == len(before)


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", ["kill", "time"])
def test_a_long_trial_that_was_interrupted_goes_on_from_its_last_epoch(
    digits_folder: Path, candidates: tuple[Candidate, ...], tmp_path: Path, ended_by: str
) -> None:
    script = SCRIPT.replace(
        "def sink(event):",
        """from vlmsel_auto.tuning import module as epochs
epochs._SAVE_EVERY = 0.0
def sink(event):
    if type(event).__name__ == "TrialEpoch":
        print("epoch", event.number, event.epoch, flush=True)""",
    ).replace("images_per_trial=150", "images_per_trial=300")
    script = script.replace('method_names=("probe", "finetune"),', "method_names=('finetune',),")
    assert "('finetune',)" in script
    workdir = tmp_path / "w"
    killed_at("epoch 0 4", script, digits_folder, workdir, NAMES[0], 1)
    assert has_paused(workdir, 0)
    more = {"trials": 1, "methods": ("finetune",), "images_per_trial": 300}
    if ended_by == "time":  # as if the clock had ended it: there is a result, of less than half of its epochs
        whole = gone_on(digits_folder, candidates[:1], tmp_path / "other", **more)[0].results[0]
        cut = {"state": TrialState.PRUNED, "out_of_time": True, "curve": whole.curve[:4], "epochs_run": 4}
        save_result(workdir, replace(whole, **cut))
    _, heard = gone_on(digits_folder, candidates[:1], workdir, **more)
    result = read_results(workdir)[-1]
    assert (result.number, result.continues, result.state) == (1, 0, "complete")
    assert result.epochs_run == len(result.curve) == result.spec.epochs
    assert next(each.epoch for each in heard if isinstance(each, TrialEpoch)) in {4, 5}  # the first that it ran
    assert not has_paused(workdir, 0)


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
    save_result(tmp_path, replace(first.results[0], number=finished.number))
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
    aside = outcome.results[1].spec.candidate
    later = run_study(**arguments, budget=Budget(trials=5), methods=("probe",))  # also in later runs
    assert {each.spec.candidate for each in later.results[2:]} == set(NAMES) - {aside, later.results[0].spec.candidate}


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(bytes(damaged))


def test_damaged_results_and_weights_are_noticed_said_and_made_again(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    said: list[str] = []

    def sink(event: object) -> None:
        if isinstance(event, Notice):
            said.append(event.text)

    arguments = {"task": task, "candidates": candidates, "ranking": ranking(), "load": zoo.load, "workdir": tmp_path}
    arguments |= {"budget": Budget(trials=2), "methods": ("probe",), "sink": sink}
    first = run_study(**arguments)
    kept = load_trial(tmp_path, first.results[1])
    flip(tmp_path / "trials" / "0000" / "result.json")
    flip(tmp_path / "trials" / "0001" / "weights.safetensors")
    again = run_study(**arguments)
    assert [line.split(":")[0] for line in said] == [
        "the result of trial 0 was damaged", "the weights of trial 1 are made again",
    ]  # fmt: skip
    assert again.results[0] == first.results[0] == read_result(tmp_path, 0)
    assert np.allclose(load_trial(tmp_path, again.results[1]).weight, kept.weight, atol=1e-4)
    assert (again.results[1].validation, again.best.number) == (first.results[1].validation, first.best.number)


@pytest.mark.parametrize("ended_by", ["time", "Ctrl+C"])
def test_weights_that_are_not_made_again_in_time_are_in_a_later_run(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path, ended_by: str
) -> None:
    def interrupted(candidate: Candidate) -> LoadedModel:
        raise KeyboardInterrupt

    said: list[str] = []

    def sink(event: object) -> None:
        if isinstance(event, Notice):
            said.append(event.text)

    arguments = {"task": task, "candidates": candidates[:1], "ranking": ranking(NAMES[:1]), "workdir": tmp_path}
    arguments |= {"methods": ("finetune",), "images_per_trial": 150, "load": zoo.load, "budget": Budget(trials=1)}
    (first,) = run_study(**arguments).results
    weights = tmp_path / "trials" / "0000" / "weights.safetensors"
    sound = load_trial(tmp_path, first)
    flip(weights)
    damaged = weights.read_bytes()
    changes = {"budget": Budget(trials=1, seconds=1e-3)} if ended_by == "time" else {"load": interrupted}
    cut = run_study(**{**arguments, **changes}, sink=sink)
    assert cut.stopped_by is (StoppedBy.BUDGET if ended_by == "time" else StoppedBy.INTERRUPTED)
    assert cut.results == (first,)
    assert weights.read_bytes() == damaged
    assert ("no time to make the weights of trial 0 again" in said[-1]) == (ended_by == "time")
    (again,) = run_study(**arguments, sink=sink).results
    assert (again.curve, again.validation) == (first.curve, first.validation)
    assert np.array_equal(load_trial(tmp_path, again).weight, sound.weight)
    assert not (tmp_path / "renewed").exists()


def test_a_lost_result_is_made_again_once(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> None:
    arguments = {"task": task, "candidates": candidates, "ranking": ranking(), "load": zoo.load, "workdir": tmp_path}
    first = run_study(**arguments, budget=Budget(trials=2), methods=("probe",))
    (tmp_path / "trials" / "0001" / "result.json").unlink()
    assert run_study(**arguments, budget=Budget(trials=2), methods=("probe",)).results == first.results
    journal = tmp_path / JOURNAL  # now of another program, which keeps no results in it
    lines = [line for line in journal.read_text().splitlines(keepends=True) if '"result"' not in line]
    journal.write_text("".join(lines))
    (tmp_path / "trials" / "0001" / "result.json").unlink()
    for _ in range(2):
        again = run_study(**arguments, budget=Budget(trials=2), methods=("probe",))
        assert [each.number for each in again.results] == [0, 2]
        assert again.results[1].validation == first.results[1].validation
