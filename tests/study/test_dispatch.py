"""Searches whose trials run on workers, in processes of this machine and on a real Ray."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.deadly_models import DeadlyOnce, deadly_load
from helpers.engine_world import APART, PARAMS, as_completed
from helpers.stored_results import read_results
from helpers.study_world import NAMES, candidates, digits_folder, ranking, study_of, task
from vlmsel_auto.engines.engine import Done, Engine
from vlmsel_auto.engines.ray import RayEngine
from vlmsel_auto.events import Event, Notice, TrialEpoch, TrialFinished, TrialStarted
from vlmsel_auto.models import zoo
from vlmsel_auto.pipeline.workers import open_meanwhile
from vlmsel_auto.records import Budget, Candidate, StoppedBy, Task, TrialState
from vlmsel_auto.study import dispatch
from vlmsel_auto.study.study import StudyOutcome, run_study
from vlmsel_auto.tuning.checkpoints import has_weights

__all__ = ["candidates", "digits_folder", "task"]  # fixtures


@pytest.fixture(scope="module", params=PARAMS)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with APART[request.param]() as opened:
        yield opened


def test_workers_of_a_ray_that_is_there_warm_up(engine: Engine) -> None:
    if not isinstance(engine, RayEngine):
        pytest.skip("of processes: tests/pipeline/test_workers.py")
    done, joined = open_meanwhile(lambda: 7, workers=None, ray="local", device="cpu")
    with joined:
        assert done == 7
        assert [type(each) for each in as_completed(joined)] == [Done, Done]


def run(
    task: Task, candidates: tuple[Candidate, ...], workdir: Path, engine: Engine, *, sink, trials: int, load=zoo.load
) -> StudyOutcome:
    return run_study(
        task=task, candidates=candidates, ranking=ranking(), budget=Budget(trials=trials), workdir=workdir,
        load=load, methods=("probe", "finetune"), images_per_trial=150, engine=engine, sink=sink,
    )  # fmt: skip


def test_two_trials_run_at_once_their_curves_arrive_and_the_budget_holds(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path, engine: Engine
) -> None:
    heard: list[Event] = []
    outcome = run(task, candidates, tmp_path, engine, sink=heard.append, trials=5)
    assert outcome.stopped_by is StoppedBy.BUDGET
    assert len(outcome.results) == 5
    assert {each.state for each in outcome.results} <= {TrialState.COMPLETE, TrialState.PRUNED}
    at_once, most = 0, 0
    for each in heard:
        at_once += isinstance(each, TrialStarted) - isinstance(each, TrialFinished)
        most = max(most, at_once)
    assert most == 2
    for each in outcome.results:
        told = [one.validation for one in heard if isinstance(one, TrialEpoch) and one.number == each.number]
        assert tuple(told) == each.curve[-len(told) :] if told else each.spec.method == "probe"
    assert outcome.best is not None
    assert has_weights(tmp_path, outcome.best.number)
    begun = [(each.spec.candidate, each.spec.method, each.spec.fold, each.continues) for each in outcome.results[:4]]
    assert len(set(begun)) == 4  # nobody was begun twice for the same hope
    assert read_results(tmp_path) == outcome.results


def test_a_killed_workers_trial_runs_again_and_no_finished_one_is_lost_or_doubled(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path, engine: Engine
) -> None:
    heard: list[Event] = []
    died = tmp_path / "died"
    outcome = run(task, candidates, tmp_path, engine, sink=heard.append, trials=6, load=DeadlyOnce(died))
    assert died.exists()
    told = "\n".join(each.text for each in heard if isinstance(each, Notice))
    (number,) = map(int, re.findall(r"the worker of trial (\d+) died: it runs again", told))
    started = {each.number: each.spec for each in heard if isinstance(each, TrialStarted)}
    assert any(spec == started[number] for later, spec in started.items() if later > number)
    finished = [each.result.number for each in heard if isinstance(each, TrialFinished)]
    assert len(finished) == len(set(finished)) == len(outcome.results) == 6
    assert {each.state for each in outcome.results} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert read_results(tmp_path) == outcome.results


@pytest.mark.slow
def test_a_trial_that_kills_its_worker_each_time_fails_after_two_tries_and_the_others_go_on(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path, engine: Engine
) -> None:
    outcome = run_study(
        task=task, candidates=candidates, ranking=ranking(), budget=Budget(trials=4), workdir=tmp_path,
        load=deadly_load, methods=("probe",), images_per_trial=150, engine=engine,
    )  # fmt: skip
    states = {each.spec.candidate: (each.state, each.reason) for each in outcome.results}
    assert states.pop(candidates[1].id) == (
        TrialState.FAILED,
        "its worker died each of 2 times that it ran (out of memory?)",
    )
    assert {state for state, _ in states.values()} == {TrialState.COMPLETE}


@pytest.mark.slow
def test_workers_that_do_not_see_the_work_directory_send_the_files(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(engine), "apart", property(lambda _: True))
    monkeypatch.setattr(dispatch, "mark", lambda *_: None)  # as if it were another machine's disk
    outcome = run(task, candidates, tmp_path, engine, sink=lambda _: None, trials=6)
    assert {each.state for each in outcome.results} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert outcome.best is not None
    assert has_weights(tmp_path, outcome.best.number)
    assert not (tmp_path / "targets").exists()  # embeddings stayed where they were made


def test_a_trial_in_a_worker_does_not_pay_for_the_coordinators_death(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path, engine: Engine
) -> None:
    arguments = {
        "task": task, "candidates": candidates, "ranking": ranking(), "load": zoo.load, "workdir": tmp_path,
        "methods": ("probe",), "engine": engine,
    }  # fmt: skip
    run_study(**arguments, budget=Budget(trials=1))
    study = study_of(tmp_path)
    study.enqueue_trial({"candidate": 1, "method": "probe"}, user_attrs={"origin": "planned", "attempt": 2})
    zombie = study.ask()  # begun for the second time when the coordinator was killed
    zombie.suggest_int("candidate", 0, len(NAMES) - 1)
    zombie.suggest_categorical("method", ("probe",))
    outcome = run_study(**arguments, budget=Budget(trials=2))
    states = {each.spec.candidate: each.state for each in outcome.results}
    assert states[sorted(NAMES)[1]] is TrialState.COMPLETE
