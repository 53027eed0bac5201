"""Fits on all labels by workers: at once, and begun while the last trials of a search run."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.engine_jobs import Square
from helpers.report_world import make_trial
from helpers.study_world import NAMES, candidates, digits_folder, ranking, task
from vlmsel_auto.engines.engine import Ticket
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.engines.local import LocalEngine
from vlmsel_auto.events import Event, Notice, Sink, TrialFinished, discard
from vlmsel_auto.models import zoo
from vlmsel_auto.pipeline.final_fit import fit_finally
from vlmsel_auto.records import Budget, Candidate, StoppedBy, Task, TrialResult, TrialState
from vlmsel_auto.study.fits import Fits, Wanted, leader_alone
from vlmsel_auto.study.study import StudyOutcome, run_study
from vlmsel_auto.tuning.checkpoints import load_trial, read_result, trial_dir

__all__ = ["candidates", "digits_folder", "task"]  # fixtures

TRIALS = 3  # on two workers: one of these has nothing to do while the last trial runs


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(2, threads=1) as opened:
        yield opened


def tune(
    task: Task,
    candidates: tuple[Candidate, ...],
    workdir: Path,
    engine: LocalEngine,
    *,
    sink: Sink = discard,
    wanted: Wanted = leader_alone,
) -> StudyOutcome:
    return run_study(
        task=task, candidates=candidates[:2], ranking=ranking(), budget=Budget(trials=TRIALS), workdir=workdir,
        load=zoo.load, methods=("finetune",), top_k=2, audits=0, images_per_trial=150, engine=engine, sink=sink,
        wanted=wanted,
    )  # fmt: skip


def jobs_so_far(engine: LocalEngine) -> int:
    ticket = engine.submit(Square(number=1))
    while (outcome := engine.finished()) is not None and outcome.ticket != ticket:
        pass
    return int(ticket) - 1


@pytest.mark.parametrize("then", ["it is wanted", "another is"])
def test_who_is_free_while_the_last_trial_runs_begins_the_fit_that_would_come_next(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path, engine: LocalEngine, then: str
) -> None:
    asked: list[int] = []

    def last_member(leader: TrialResult, members: Sequence[TrialResult]) -> list[int]:
        assert leader in members
        asked.append(members[-1].number)
        return asked[-1:]

    before = jobs_so_far(engine)
    outcome = tune(task, candidates, tmp_path, engine, wanted=last_member)
    assert {each.state for each in outcome.results} == {TrialState.COMPLETE}
    begun = [each.number for each in outcome.results if each.on_all_labels]
    begun += [each.number for each in outcome.fits.running.values()]
    assert begun == asked[:1]
    assert tuple(read_result(tmp_path, each.number) for each in outcome.results) == outcome.results
    others = [each.number for each in outcome.results if each.number not in begun]
    numbers = begun if then == "it is wanted" else others[:1]
    heard: list[Event] = []
    made = fit_finally(outcome, wanted=numbers, engine=engine, deadline=None, sink=heard.append)
    assert not [each for each in heard if isinstance(each, Notice)]
    done = {each.number for each in made.results if each.on_all_labels}
    assert done >= set(numbers)
    new_weights = (tmp_path / "trials").glob("*/weights-on-all-labels.safetensors")
    assert {int(each.parent.name) for each in new_weights} == done
    assert done <= {*numbers, *(each.number for each in outcome.results if each.on_all_labels)}
    assert jobs_so_far(engine) - before == 1 + TRIALS + 1 + (numbers != begun)  # nothing was made twice
    assert tuple(read_result(tmp_path, each.number) for each in made.results) == made.results


def test_who_asks_to_end_waits_for_no_fit(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path, engine: LocalEngine
) -> None:
    ended: list[int] = []

    def sink(event: Event) -> None:
        if isinstance(event, TrialFinished):
            ended.append(event.result.number)
            if len(ended) == TRIALS:
                raise KeyboardInterrupt

    outcome = tune(task, candidates, tmp_path, engine, sink=sink)
    assert outcome.stopped_by is StoppedBy.INTERRUPTED
    assert not outcome.fits.running
    assert len(outcome.results) == TRIALS


def test_two_workers_fit_at_once_what_one_process_fits_in_turn(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path, engine: LocalEngine
) -> None:
    workdir = tmp_path / "w"
    outcome = run_study(
        task=task, candidates=candidates[:1], ranking=ranking(NAMES[:1]), budget=Budget(trials=1), workdir=workdir,
        load=zoo.load, methods=("finetune",), images_per_trial=150,
    )  # fmt: skip
    (tower,) = outcome.results
    twin = replace(tower, number=tower.number + 50, spec=replace(tower.spec, seed=tower.spec.seed + 1))
    shutil.copytree(trial_dir(workdir, tower.number), trial_dir(workdir, twin.number))
    two = replace(outcome, results=(tower, twin), members=(tower, twin))
    wanted = [tower.number, twin.number]
    shutil.copytree(workdir, tmp_path / "copy")
    alone = fit_finally(
        replace(two, runner=replace(outcome.runner, workdir=tmp_path / "copy")), wanted=wanted, engine=InProcess(),
        deadline=None, sink=print,
    )  # fmt: skip
    told: list[Event] = []
    made = fit_finally(two, wanted=wanted, engine=engine, deadline=None, sink=told.append)
    assert not [each for each in told if isinstance(each, Notice)]
    assert all(each.on_all_labels for each in (*made.members, *alone.members))
    for mine_now, other_now in zip(made.members, alone.members, strict=True):
        mine, other = load_trial(workdir, mine_now), load_trial(tmp_path / "copy", other_now)
        assert np.allclose(mine.weight, other.weight, atol=1e-4)


def test_a_fit_in_vain_is_not_begun_again() -> None:
    trial = make_trial(3, "a", validation=0.9, method="finetune")
    fits = Fits()
    assert fits.can_begin(trial, folds=5, left=None)
    assert fits.can_begin(trial, folds=5, left=1.3 * trial.seconds)
    assert not fits.can_begin(trial, folds=5, left=1.2 * trial.seconds)
    assert not fits.can_begin(trial, folds=0, left=None)
    assert not fits.can_begin(replace(trial, on_all_labels=True), folds=5, left=None)
    assert not fits.can_begin(make_trial(3, "a", validation=0.9), folds=5, left=None)  # a head
    assert not Fits(in_vain={3}).can_begin(trial, folds=5, left=None)
    assert not Fits(running={Ticket(1): trial}).can_begin(trial, folds=5, left=None)
