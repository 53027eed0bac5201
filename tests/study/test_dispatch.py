"""A trial on its way to a worker, in processes of this machine and on a real Ray."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from helpers.deadly_models import DeadlyOnce, deadly_load
from helpers.engine_world import APART, PARAMS, as_completed
from helpers.stored_results import read_results
from helpers.study_world import NAMES, Search, candidates, digits_folder, left_running, search, task
from vlmsel_auto.cache import Store
from vlmsel_auto.engines.engine import Done, Engine, Held
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.engines.ray import RayEngine
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.events import Event, Notice, TrialEpoch, TrialFinished, TrialStarted
from vlmsel_auto.models import zoo
from vlmsel_auto.pipeline.workers import open_meanwhile
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.records import Candidate, StoppedBy, Task, TrialState
from vlmsel_auto.study import dispatch
from vlmsel_auto.study.dispatch import Dispatch, TrialJob
from vlmsel_auto.tuning.checkpoints import has_weights
from vlmsel_auto.tuning.paused import has_paused
from vlmsel_auto.tuning.runner import Trial, TrialRunner

__all__ = ["candidates", "digits_folder", "search", "task"]  # fixtures


@dataclass
class Line:
    """A channel whose coordinator asks to stop after so many epochs."""

    most: int = 99
    told: list = field(default_factory=list)

    def tell(self, item: object) -> None:
        self.told.append(item)

    @property
    def stopping(self) -> bool:
        return len(self.told) >= self.most


@pytest.fixture
def runner(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> TrialRunner:
    return TrialRunner(
        task=task, candidates=candidates, load=zoo.load, store=Store(tmp_path / "work" / "targets"),
        workdir=tmp_path / "work", images_per_trial=150,
    )  # fmt: skip


def job(runner: TrialRunner, **other) -> TrialJob:
    runner.workdir.mkdir(exist_ok=True)
    (runner.workdir / ".coordinator").write_text("abc")
    trial = Trial(**{"number": 3, "spec": runner.spec("finetune", NAMES[1], DEFAULT), **other})
    return TrialJob(runner=Held(runner), trial=trial, mark="abc")


def test_a_trial_ends_when_it_is_asked_to_and_tells_its_epochs(runner: TrialRunner) -> None:
    line = Line(most=2)
    attempt = job(runner).run(line)
    assert attempt.result.state is TrialState.PRUNED
    assert [each.epoch for each in line.told if isinstance(each, TrialEpoch)] == [1, 2]
    assert not has_paused(runner.workdir, 3)


def test_a_deadline_is_a_time_of_day(runner: TrialRunner) -> None:
    result = job(runner, deadline=time.time() - 1).run(Line()).result
    assert result.out_of_time


def test_a_worker_that_does_not_see_the_work_directory_says_so(runner: TrialRunner) -> None:
    away = job(runner)
    with Dispatch(engine=InProcess(), runner=runner):
        assert (runner.workdir / ".coordinator").read_text() != "abc"  # of another search
        with pytest.raises(WorkdirError, match=r"every node must see .* but got .*work on a node that"):
            away.run(Line())
    assert list(runner.workdir.iterdir()) == []


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


RUN = {"methods": ("probe", "finetune"), "images_per_trial": 100}


def test_two_trials_run_at_once_their_curves_arrive_and_the_budget_holds(
    search: Search, tmp_path: Path, engine: Engine
) -> None:
    heard: list[Event] = []
    outcome = search(4, **RUN, engine=engine, sink=heard.append)
    assert outcome.stopped_by is StoppedBy.BUDGET
    assert len(outcome.results) == 4
    assert {each.state for each in outcome.results} <= {TrialState.COMPLETE, TrialState.PRUNED}
    at_once, most = 0, 0
    for each in heard:
        at_once += isinstance(each, TrialStarted) - isinstance(each, TrialFinished)
        most = max(most, at_once)
    assert most == 2
    for each in outcome.results:
        told = [one.validation for one in heard if isinstance(one, TrialEpoch) and one.number == each.number]
        assert tuple(told) == each.curve[-len(told) :] if told else each.spec.method == "probe"
    assert has_weights(tmp_path, outcome.best.number)
    begun = [(each.spec.candidate, each.spec.method, each.spec.fold, each.continues) for each in outcome.results]
    assert len(set(begun)) == 4  # nobody was begun twice for the same hope
    assert read_results(tmp_path) == outcome.results


def test_a_killed_workers_trial_runs_again_and_no_finished_one_is_lost_or_doubled(
    search: Search, tmp_path: Path, engine: Engine
) -> None:
    heard: list[Event] = []
    died = tmp_path / "died"
    outcome = search(4, **RUN, engine=engine, sink=heard.append, load=DeadlyOnce(died))
    assert died.exists()
    told = "\n".join(each.text for each in heard if isinstance(each, Notice))
    (number,) = map(int, re.findall(r"the worker of trial (\d+) died: it runs again", told))
    started = {each.number: each.spec for each in heard if isinstance(each, TrialStarted)}
    assert any(spec == started[number] for later, spec in started.items() if later > number)
    finished = [each.result.number for each in heard if isinstance(each, TrialFinished)]
    assert len(finished) == len(set(finished)) == len(outcome.results) == 4
    assert {each.state for each in outcome.results} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert read_results(tmp_path) == outcome.results


@pytest.mark.slow
def test_a_trial_that_kills_its_worker_each_time_fails_after_two_tries_and_the_others_go_on(
    search: Search, engine: Engine
) -> None:
    outcome = search(4, load=deadly_load, engine=engine)
    states = {each.spec.candidate: (each.state, each.reason) for each in outcome.results}
    assert states.pop(NAMES[1]) == (TrialState.FAILED, "its worker process died each time that it ran (out of memory?)")
    assert {state for state, _ in states.values()} == {TrialState.COMPLETE}


def test_workers_that_do_not_see_the_work_directory_end_the_search(
    search: Search, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "write_atomically", lambda *_: None)  # as if it were another machine's disk
    with pytest.raises(WorkdirError, match="every node must see the work directory"):
        search(2, engine=engine)
    monkeypatch.undo()
    assert len(search(2, engine=engine).results) == 2  # the trial was queued again


def test_a_trial_in_a_worker_does_not_pay_for_the_coordinators_death(
    search: Search, tmp_path: Path, engine: Engine
) -> None:
    search(1, engine=engine)
    left_running(tmp_path, attempt=2)  # begun for the second time when the coordinator was killed
    outcome = search(2, engine=engine)
    states = {each.spec.candidate: each.state for each in outcome.results}
    assert states[sorted(NAMES)[1]] is TrialState.COMPLETE
