"""The chosen towers on all labelled images: what changes, and when nothing does; by workers: study/test_fits.py."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.stored_results import read_results
from helpers.study_world import NAMES, SCRIPT, candidates, digits_folder, ranking, task
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.events import Event, StageFinished, StageProgress, StageStarted
from vlmsel_auto.models import zoo
from vlmsel_auto.models.limits import NO_LIMITS
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.pipeline.ensemble import pool_leaders
from vlmsel_auto.pipeline.final_fit import fit_finally
from vlmsel_auto.pipeline.finish import Delivery, wanted_now
from vlmsel_auto.planning.objective import ACCURACY
from vlmsel_auto.records import Budget, Candidate, StoppedBy, Task, TrialResult
from vlmsel_auto.study.study import StudyOutcome, run_study
from vlmsel_auto.tuning.averaging import MOST_FITS
from vlmsel_auto.tuning.checkpoints import Checkpoint, load_trial, read_result, trial_dir

__all__ = ["candidates", "digits_folder", "task"]  # fixtures

Fit = Callable[..., StudyOutcome]


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "w"


def study(task: Task, candidates: tuple[Candidate, ...], workdir: Path) -> StudyOutcome:
    return run_study(
        task=task, candidates=candidates[:2], ranking=ranking(), budget=Budget(trials=3), workdir=workdir,
        load=zoo.load, top_k=1, audits=0, images_per_trial=150,
    )  # fmt: skip


@pytest.fixture(scope="module")
def studied(task: Task, candidates: tuple[Candidate, ...], tmp_path_factory: pytest.TempPathFactory) -> StudyOutcome:
    return study(task, candidates, tmp_path_factory.mktemp("studied") / "w")


@pytest.fixture
def outcome(studied: StudyOutcome, workdir: Path) -> StudyOutcome:
    """The same study for each test, in a work directory of its own."""
    shutil.copytree(studied.runner.workdir, workdir)
    return replace(studied, runner=replace(studied.runner, workdir=workdir), fits=deepcopy(studied.fits))


def figure_is_of_weights(trial: TrialResult, *, task: Task, workdir: Path) -> bool:
    said = load_trial(workdir, trial).test_logits
    return trial.test == (said.argmax(axis=1) == task.labels[np.sort(task.test)]).mean()


def files_of(workdir: Path, number: int) -> list[str]:
    return sorted(each.name for each in trial_dir(workdir, number).iterdir())


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
    before = {each.number: load_trial(workdir, each) for each in outcome.members}
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
        old, after = before[new.number], load_trial(workdir, new)
        assert np.array_equal(after.held_out_logits, old.held_out_logits)  # by the fit that knew nothing
        assert np.allclose(after.weight, old.weight) == (new.number not in towers)
        if new.number in towers:
            assert new.averaged_fits == (MOST_FITS if new.number == made.best.number else 1)
            same = {"test": towers[new.number].test, "cost": towers[new.number].cost}
            kept = replace(new, **same, on_all_labels=False, averaged_fits=1)
            assert kept == towers[new.number]
            assert figure_is_of_weights(new, task=task, workdir=workdir)
    begun = time.monotonic()
    again = fit_finally(made, wanted=list(towers), engine=InProcess(), deadline=None, sink=print)
    assert (again.results, again.best, again.members) == (made.results, made.best, made.members)
    assert time.monotonic() - begun < 1.0


def test_only_the_best_tower_is_fitted_again_and_only_where_that_is_worth_its_price(
    outcome: StudyOutcome, workdir: Path, tmp_path: Path
) -> None:
    (tower,) = (each for each in outcome.results if each.spec.method == "finetune")

    def fitted(name: str, *, price: float, best: TrialResult | None) -> tuple[int, Checkpoint]:
        copy = shutil.copytree(workdir, tmp_path / name)
        plan = replace(outcome.plan, policy=replace(outcome.plan.policy, price=price))
        made = fit_finally(
            replace(outcome, plan=plan, best=best, runner=replace(outcome.runner, workdir=copy)),
            wanted=[tower.number], engine=InProcess(), deadline=None, sink=print,
        )  # fmt: skip
        (now,) = (each for each in made.results if each.number == tower.number)
        return now.averaged_fits, load_trial(copy, now)

    first = load_trial(workdir, tower)
    count, once = fitted("not the best", price=0.0, best=None)
    assert count == 1
    count, again = fitted("too dear", price=1.0, best=tower)
    assert count == 1
    assert np.array_equal(once.weight, again.weight)
    count, several = fitted("worth it", price=0.0, best=tower)
    assert count == MOST_FITS
    assert not np.allclose(several.weight, once.weight)
    assert np.array_equal(several.held_out_logits, first.held_out_logits)


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


@pytest.mark.parametrize("at", [StageStarted, StageProgress])
def test_who_asks_to_end_while_towers_are_fitted_keeps_those_that_are(
    outcome: StudyOutcome, fit: Fit, task: Task, workdir: Path, at: type[Event]
) -> None:
    def sink(event: Event) -> None:
        if isinstance(event, at):
            raise KeyboardInterrupt

    made = fit(sink=sink)
    assert made.stopped_by is StoppedBy.INTERRUPTED
    (tower,) = (each for each in made.results if each.spec.method == "finetune")
    assert tower.on_all_labels == (at is StageProgress)
    assert [each for each in made.results if each != tower] == [
        each for each in outcome.results if each.number != tower.number
    ]
    assert all(read_result(workdir, each.number) == each for each in made.results)
    assert figure_is_of_weights(tower, task=task, workdir=workdir)


NEW_WEIGHTS = "weights-on-all-labels.safetensors"
KILLED = """
import os, signal
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.pipeline import final_fit
def killed(workdir, result):
    os.kill(os.getpid(), signal.SIGKILL)
final_fit.save_result = killed
final_fit.fit_finally(outcome, wanted=[outcome.best.number], engine=InProcess(), deadline=None, sink=print)
"""


def test_a_kill_between_weights_and_result_leaves_the_trial_with_weights_and_figure_as_they_were(
    digits_folder: Path, task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    script = SCRIPT.replace('methods=("probe", "finetune")', 'methods=("finetune",)') + KILLED
    command = [sys.executable, "-c", script, str(digits_folder), str(tmp_path), NAMES[0], "1"]
    killed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (trial,) = read_results(tmp_path)
    assert files_of(tmp_path, trial.number) == ["result.json", NEW_WEIGHTS, "weights.safetensors"]
    assert not trial.on_all_labels
    assert figure_is_of_weights(trial, task=task, workdir=tmp_path)
    outcome = run_study(
        task=task, candidates=candidates[:1], ranking=ranking(NAMES[:1]), budget=Budget(trials=1), workdir=tmp_path,
        load=zoo.load, methods=("finetune",), images_per_trial=150,
    )  # fmt: skip
    assert outcome.results == (trial,)
    assert files_of(tmp_path, trial.number) == ["result.json", "weights.safetensors"]
    made = fit_finally(outcome, wanted=[trial.number], engine=InProcess(), deadline=None, sink=print).best
    assert made is not None
    assert made.on_all_labels
    assert figure_is_of_weights(made, task=task, workdir=tmp_path)
    assert files_of(tmp_path, trial.number) == ["result.json", NEW_WEIGHTS]


def test_a_trial_whose_result_is_lost_after_its_fit_is_trained_again(
    outcome: StudyOutcome, fit: Fit, task: Task, candidates: tuple[Candidate, ...], workdir: Path
) -> None:
    (tower,) = (each for each in fit().results if each.on_all_labels)
    (trial_dir(workdir, tower.number) / "result.json").unlink()
    again = study(task, candidates, workdir)
    (before, now) = (next(each for each in one.results if each.number == tower.number) for one in (outcome, again))
    assert (now.validation, now.on_all_labels) == (before.validation, False)
    assert figure_is_of_weights(now, task=task, workdir=workdir)
    assert files_of(workdir, now.number) == ["result.json", "weights.safetensors"]


def test_what_the_user_would_get_now_are_best_and_pooled_towers(
    outcome: StudyOutcome, task: Task, candidates: tuple[Candidate, ...], workdir: Path
) -> None:
    assert outcome.best is not None
    pooled = pool_leaders(outcome.members, size=5, task=task, workdir=workdir, sink=print)
    towers = [] if pooled is None else pooled.towers
    for size, expected in ((1, {outcome.best.number}), (5, {outcome.best.number, *towers})):
        delivery = Delivery(
            task=task, candidates=candidates[:2], size=size, limits=NO_LIMITS, objective=ACCURACY,
            store=outcome.runner.store, workdir=workdir,
        )  # fmt: skip
        found = wanted_now(outcome.best, outcome.members, delivery=delivery)
        assert found[0] == outcome.best.number
        assert set(found) == expected
        assert len(found) == len(expected)
