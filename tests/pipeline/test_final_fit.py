"""The chosen towers on all labelled images: what changes, and when nothing does."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.study_world import candidates, digits_folder, ranking, task
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.engines.local import LocalEngine
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.events import Event, Notice, StageFinished, StageProgress, StageStarted
from vlmsel_auto.models import zoo
from vlmsel_auto.models.limits import NO_LIMITS
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.pipeline.ensemble import pool_leaders
from vlmsel_auto.pipeline.final_fit import fit_finally
from vlmsel_auto.pipeline.finish import wanted_now
from vlmsel_auto.planning.objective import ACCURACY
from vlmsel_auto.records import Budget, Candidate, Task, TrialResult
from vlmsel_auto.study.study import StudyOutcome, run_study
from vlmsel_auto.tuning.averaging import MOST_FITS
from vlmsel_auto.tuning.checkpoints import load_trial, read_result, trial_dir

__all__ = ["candidates", "digits_folder", "task"]  # fixtures

Fit = Callable[..., StudyOutcome]


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "w"


@pytest.fixture
def outcome(task: Task, candidates: tuple[Candidate, ...], workdir: Path) -> StudyOutcome:
    return run_study(
        task=task, candidates=candidates[:2], ranking=ranking(), budget=Budget(trials=3), workdir=workdir,
        load=zoo.load, top_k=1, audits=0, images_per_trial=150,
    )  # fmt: skip


@pytest.fixture
def fit(outcome: StudyOutcome) -> Fit:
    def run(**changes: object) -> StudyOutcome:
        arguments = {
            "wanted": [each.number for each in outcome.results], "engine": InProcess(), "deadline": None, "sink": print,
        }  # fmt: skip
        runner = replace(outcome.runner, **{name: changes.pop(name) for name in ("task", "load") if name in changes})
        return fit_finally(replace(outcome, runner=runner), **{**arguments, **changes})

    return run


def test_towers_learn_from_all_labels_and_heads_stay(
    outcome: StudyOutcome, fit: Fit, task: Task, workdir: Path
) -> None:
    before = {each.number: load_trial(workdir, each.number) for each in outcome.members}
    towers = {each.number: each for each in outcome.members if each.spec.method == "finetune"}
    assert 0 < len(towers) < len(outcome.members)
    heard: list[Event] = []
    made = fit(sink=heard.append)
    steps = [each for each in heard if isinstance(each, (StageStarted, StageProgress, StageFinished))]
    assert [type(each) for each in steps] == [StageStarted, *len(towers) * [StageProgress], StageFinished]
    assert {each.stage for each in steps} == {"fits"}
    for each in made.results:
        assert each.on_all_labels == (each.number in towers)
        assert read_result(workdir, each.number) == each
    for new in made.members:
        old, after = before[new.number], load_trial(workdir, new.number)
        assert np.array_equal(after.held_out_logits, old.held_out_logits)  # by the fit that knew nothing
        assert np.allclose(after.weight, old.weight) == (new.number not in towers)
        if new.number in towers:
            assert new.averaged_fits == (MOST_FITS if new.number == made.best.number else 1)
            same = {"test": towers[new.number].test, "cost": towers[new.number].cost}
            kept = replace(new, **same, on_all_labels=False, averaged_fits=1)
            assert kept == towers[new.number]
            assert new.test == (after.test_logits.argmax(axis=1) == task.labels[np.sort(task.test)]).mean()
    begun = time.monotonic()
    again = fit_finally(made, wanted=list(towers), engine=InProcess(), deadline=None, sink=print)
    assert (again.results, again.best, again.members) == (made.results, made.best, made.members)
    assert time.monotonic() - begun < 1.0


def test_only_the_best_tower_is_fitted_again_and_only_where_that_is_worth_its_price(
    outcome: StudyOutcome, workdir: Path
) -> None:
    (tower,) = (each for each in outcome.results if each.spec.method == "finetune")

    def fits(*, price: float, best: TrialResult | None) -> int:
        plan = replace(outcome.plan, policy=replace(outcome.plan.policy, price=price))
        made = fit_finally(
            replace(outcome, plan=plan, best=best), wanted=[tower.number], engine=InProcess(), deadline=None, sink=print
        )
        return next(each.averaged_fits for each in made.results if each.number == tower.number)

    first = load_trial(workdir, tower.number)
    assert fits(price=0.0, best=None) == 1
    once = load_trial(workdir, tower.number)
    assert fits(price=1.0, best=tower) == 1
    again = load_trial(workdir, tower.number)
    assert np.array_equal(once.weight, again.weight)  # the same fit as before
    assert fits(price=0.0, best=tower) == MOST_FITS
    assert not np.allclose(load_trial(workdir, tower.number).weight, once.weight)
    assert np.array_equal(load_trial(workdir, tower.number).held_out_logits, first.held_out_logits)


@pytest.mark.parametrize("case", ["no time", "given validation images", "cannot be loaded", "not wanted"])
def test_otherwise_trials_stay_as_they_are(
    outcome: StudyOutcome, fit: Fit, task: Task, workdir: Path, case: str
) -> None:
    def gone(candidate: Candidate) -> LoadedModel:
        raise TrialUnavailable(f"{candidate.id} is gone")

    told: list[object] = []
    changes: dict[str, dict[str, object]] = {
        "no time": {"deadline": time.monotonic() + 0.01},
        "given validation images": {"task": replace(task, folds=())},
        "cannot be loaded": {"load": gone},
        "not wanted": {"wanted": []},
    }
    made = fit(sink=told.append, **changes[case])
    assert made.results == outcome.results
    assert bool(told) == (case == "cannot be loaded")
    assert all(read_result(workdir, each.number) == each for each in outcome.results)


def test_what_the_user_would_get_now_are_best_and_pooled_towers(
    outcome: StudyOutcome, task: Task, candidates: tuple[Candidate, ...], workdir: Path
) -> None:
    assert outcome.best is not None
    pooled = pool_leaders(outcome.members, size=5, task=task, workdir=workdir, sink=print)
    towers = [] if pooled is None else pooled.towers
    for size, expected in ((1, {outcome.best.number}), (5, {outcome.best.number, *towers})):
        found = wanted_now(
            outcome.best, outcome.members, task=task, candidates=candidates[:2], size=size, limits=NO_LIMITS,
            objective=ACCURACY, store=outcome.runner.store, workdir=workdir,
        )  # fmt: skip
        assert found[0] == outcome.best.number
        assert set(found) == expected
        assert len(found) == len(expected)


def test_two_workers_fit_at_once_what_one_process_fits_in_turn(
    outcome: StudyOutcome, fit: Fit, workdir: Path, tmp_path: Path
) -> None:
    (tower,) = (each for each in outcome.results if each.spec.method == "finetune")
    twin = replace(tower, number=tower.number + 50, spec=replace(tower.spec, seed=tower.spec.seed + 1))
    shutil.copytree(trial_dir(workdir, tower.number), trial_dir(workdir, twin.number))
    two = replace(outcome, results=(*outcome.results, twin), members=(tower, twin))
    wanted = [tower.number, twin.number]
    shutil.copytree(workdir, tmp_path / "copy")
    alone = fit_finally(
        replace(two, runner=replace(outcome.runner, workdir=tmp_path / "copy")), wanted=wanted, engine=InProcess(),
        deadline=None, sink=print,
    )  # fmt: skip
    told: list[Event] = []
    with LocalEngine(2, threads=1) as engine:
        made = fit_finally(two, wanted=wanted, engine=engine, deadline=None, sink=told.append)
    assert not [each for each in told if isinstance(each, Notice)]
    assert all(each.on_all_labels for each in (*made.members, *alone.members))
    for number in wanted:
        mine, other = (load_trial(folder, number) for folder in (workdir, tmp_path / "copy"))
        assert np.allclose(mine.weight, other.weight, atol=1e-4)
