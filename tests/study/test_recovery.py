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

from helpers.opened_study import leave_state, opened, planned
from helpers.stored_results import read_results
from helpers.study_world import (
    NAMES,
    Search,
    candidates,
    digits_folder,
    left_running,
    search,
    search_in,
    study_of,
    task,
)
from helpers.tuning_world import runner
from vlmsel_auto.events import Notice, Sink, TrialEpoch, TrialFinished, discard
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate, StoppedBy, TrialState
from vlmsel_auto.study.optuna_study import JOURNAL
from vlmsel_auto.study.recovery import Recovery
from vlmsel_auto.study.results import Results
from vlmsel_auto.tuning.checkpoints import load_trial, read_result, save_result
from vlmsel_auto.tuning.paused import has_paused

__all__ = ["candidates", "digits_folder", "search", "task"]  # fixtures


_APART = """
from pathlib import PosixPath
from vlmsel_auto.process import collections_paused
with collections_paused():  # as the command line imports
    from helpers.study_world import search_in
    from vlmsel_auto.tuning import module
if {often}:
    module._SAVE_EVERY = 0.0
search_in({workdir!r}, {folder!r}, sink=lambda event: print(event, flush=True), **{how!r})
"""


def killed_at(
    event: str, workdir: Path, folder: Path, *, after: float = 0.0, often: bool = False, **how: object
) -> None:
    """`search_in` in a process of its own, which is killed ``after`` it told of an event that begins so."""
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    command = [sys.executable, "-c", _APART.format(workdir=workdir, folder=folder, often=often, how=how)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line.startswith(event):
                time.sleep(after)
                process.kill()
    assert process.returncode == -signal.SIGKILL


def test_kill_minus_nine_and_resume(digits_folder: Path, tmp_path: Path) -> None:
    workdir, heard = tmp_path / "w", []
    killed_at("TrialStarted(number=2,", workdir, digits_folder, trials=4, after=0.05)
    before = {each.number: each for each in read_results(workdir)}
    outcome = search_in(workdir, digits_folder, trials=4, sink=heard.append)
    assert outcome.stopped_by is StoppedBy.BUDGET
    after = {each.number: each for each in read_results(workdir)}
    assert {number: after[number] for number in before} == before
    assert {0, 1} <= set(before)
    assert len(after) == 4
    trials = study_of(workdir).trials
    assert not [each for each in trials if each.state == optuna.trial.TrialState.RUNNING]
    retries = [each.user_attrs["retry_of"] for each in trials if "retry_of" in each.user_attrs]
    assert len(retries) == len(set(retries))
    assert len([each for each in heard if isinstance(each, TrialFinished) and each.resumed]) == len(before)


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", ["kill", "time"])
def test_a_long_trial_that_was_interrupted_goes_on_from_its_last_epoch(
    digits_folder: Path, tmp_path: Path, ended_by: str
) -> None:
    workdir, heard = tmp_path / "w", []
    how = {"trials": 1, "methods": ("finetune",), "images_per_trial": 300, "names": NAMES[:1]}
    killed_at("TrialEpoch(number=0, epoch=4,", workdir, digits_folder, often=True, **how)
    assert has_paused(workdir, 0)
    if ended_by == "time":  # as if the clock had ended it: there is a result, of less than half of its epochs
        (whole,) = search_in(tmp_path / "other", digits_folder, sink=discard, **how).results
        cut = {"state": TrialState.PRUNED, "out_of_time": True, "curve": whole.curve[:4], "epochs_run": 4}
        save_result(workdir, replace(whole, **cut))
    search_in(workdir, digits_folder, sink=heard.append, **how)
    result = read_results(workdir)[-1]
    assert (result.number, result.continues, result.state) == (1, 0, "complete")
    assert result.epochs_run == len(result.curve) == result.spec.epochs
    assert next(each.epoch for each in heard if isinstance(each, TrialEpoch)) in {4, 5}  # the first that it ran
    assert not has_paused(workdir, 0)


def test_a_lost_journal_is_written_anew_from_the_results(search: Search, tmp_path: Path) -> None:
    first = search(2)
    (tmp_path / JOURNAL).unlink()
    again = search(3)
    assert again.results[:2] == first.results
    assert [each.number for each in again.results] == [0, 1, 2]
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-7])  # a machine that went down inside a line
    last = search(3)
    assert last.results == again.results


def test_a_zombie_is_queued_again_once_and_adopted_when_it_had_finished(search: Search, tmp_path: Path) -> None:
    first = search(1)
    left_running(tmp_path)
    second = search(2)
    assert [each.number for each in second.results] == [0, 2]
    assert second.results[1].spec.candidate == sorted(NAMES)[1]
    trials = study_of(tmp_path).trials
    assert [each.state.name for each in trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert [each.user_attrs["attempt"] for each in trials[::2]] == [1, 2]
    finished = study_of(tmp_path).ask()  # killed after its result was written
    save_result(tmp_path, replace(first.results[0], number=finished.number))
    third = search(3)
    assert [each.number for each in third.results] == [0, 2, 3]
    assert third.results[2].validation == first.results[0].validation
    assert study_of(tmp_path).trials[3].state.name == "COMPLETE"


def test_an_unfinished_trial_goes_on_from_its_state_where_it_left_one(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        for _ in range(2):
            study.queue(planned())
            study.take()
        leave_state(tmp_path, 1)
        Recovery(study=study, results=Results(workdir=tmp_path), runner=runner(tmp_path)).queue_unfinished()
        assert [(each.retry_of, each.planned.continues) for each in study.waiting()] == [(0, None), (1, 1)]


def test_a_trial_that_kills_the_process_twice_is_given_up(search: Search, tmp_path: Path) -> None:
    search(1)
    left_running(tmp_path, attempt=2)
    outcome = search(2)
    assert outcome.results[1].state == "failed"
    assert "killed 2 times" in outcome.results[1].reason
    aside = outcome.results[1].spec.candidate
    later = search(5)  # also in later runs
    assert {each.spec.candidate for each in later.results[2:]} == set(NAMES) - {aside, later.results[0].spec.candidate}


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(bytes(damaged))


def notices(said: list[str]) -> Sink:
    return lambda event: said.append(event.text) if isinstance(event, Notice) else None


def test_damaged_results_and_weights_are_noticed_said_and_made_again(search: Search, tmp_path: Path) -> None:
    said: list[str] = []
    first = search(2)
    kept = load_trial(tmp_path, first.results[1])
    flip(tmp_path / "trials" / "0000" / "result.json")
    flip(tmp_path / "trials" / "0001" / "weights.safetensors")
    again = search(2, sink=notices(said))
    assert [line.split(":")[0] for line in said] == [
        "the result of trial 0 was damaged", "the weights of trial 1 are made again",
    ]  # fmt: skip
    assert again.results[0] == first.results[0] == read_result(tmp_path, 0)
    assert np.allclose(load_trial(tmp_path, again.results[1]).weight, kept.weight, atol=1e-4)
    assert (again.results[1].validation, again.best.number) == (first.results[1].validation, first.best.number)


@pytest.mark.parametrize("ended_by", ["time", "Ctrl+C"])
def test_weights_that_are_not_made_again_in_time_are_in_a_later_run(
    search: Search, candidates: tuple[Candidate, ...], tmp_path: Path, ended_by: str
) -> None:
    def interrupted(candidate: Candidate) -> LoadedModel:
        raise KeyboardInterrupt

    said: list[str] = []
    same = {"candidates": candidates[:1], "methods": ("finetune",), "images_per_trial": 150, "sink": notices(said)}
    (first,) = search(1, **same).results
    weights = tmp_path / "trials" / "0000" / "weights.safetensors"
    sound = load_trial(tmp_path, first)
    flip(weights)
    damaged = weights.read_bytes()
    cut = search(1, **same, **({"seconds": 1e-3} if ended_by == "time" else {"load": interrupted}))
    assert cut.stopped_by is (StoppedBy.BUDGET if ended_by == "time" else StoppedBy.INTERRUPTED)
    assert cut.results == (first,)
    assert weights.read_bytes() == damaged
    assert ("no time to make the weights of trial 0 again" in said[-1]) == (ended_by == "time")
    (again,) = search(1, **same).results
    assert (again.curve, again.validation) == (first.curve, first.validation)
    assert np.array_equal(load_trial(tmp_path, again).weight, sound.weight)
    assert not (tmp_path / "renewed").exists()


def test_a_lost_result_is_made_again_once(search: Search, tmp_path: Path) -> None:
    first = search(2)
    (tmp_path / "trials" / "0001" / "result.json").unlink()
    assert search(2).results == first.results
    journal = tmp_path / JOURNAL  # now of another program, which keeps no results in it
    lines = [line for line in journal.read_text().splitlines(keepends=True) if '"result"' not in line]
    journal.write_text("".join(lines))
    (tmp_path / "trials" / "0001" / "result.json").unlink()
    for _ in range(2):
        again = search(2)
        assert [each.number for each in again.results] == [0, 2]
        assert again.results[1].validation == first.results[1].validation
