"""Fits of the same settings as one classifier: its weights, what is known of it, and that a kill loses nothing."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

import vlmsel_auto
from helpers.short_trials import IMAGES, short_trials
from helpers.stored_results import read_results
from helpers.study_world import candidates, digits_folder, task
from helpers.tuning_world import digits, spec
from vlmsel_auto.cache import Store
from vlmsel_auto.events import Event, StageStarted
from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.models import zoo
from vlmsel_auto.models.exporting import read_classifier
from vlmsel_auto.models.pooling import log_probabilities
from vlmsel_auto.models.prediction import predict
from vlmsel_auto.pipeline.ensemble import Member, Pool, export_ensemble
from vlmsel_auto.pipeline.export import export_best
from vlmsel_auto.pipeline.joined import HeldOut, Joined, Trials, calibrated, join
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.records import Budget, Candidate, Task, TrialOrigin, TrialResult, TrialState
from vlmsel_auto.tuning.checkpoints import (
    Checkpoint,
    keep_held_out_alone,
    load_trial,
    save_result,
    save_weights,
    trial_dir,
)
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.runner import Trial, TrialRunner

__all__ = ["candidates", "digits_folder", "short_trials", "task"]  # fixtures


@dataclass(frozen=True, kw_only=True)
class World:
    """A tower that was fitted twice, each time without another part of the labelled images, and a head."""

    task: Task
    candidate: Candidate
    workdir: Path
    first: TrialResult
    second: TrialResult
    head: TrialResult

    def join(self, *results: TrialResult) -> Joined:
        """The first of these with the others."""
        return join(results[0], replace(self.trials, results=results), load=zoo.load)

    @property
    def trials(self) -> Trials:
        """What they left."""
        return Trials(
            task=self.task, candidates=[self.candidate], workdir=self.workdir, store=Store(self.workdir), sink=print
        )


@pytest.fixture(scope="module")
def made(task: Task, candidates: tuple[Candidate, ...], tmp_path_factory: pytest.TempPathFactory) -> World:
    workdir, candidate = tmp_path_factory.mktemp("fits") / "w", candidates[0]
    runner = TrialRunner(
        task=task, candidates=[candidate], load=zoo.load, store=Store(workdir / "targets"), workdir=workdir,
        images_per_trial=IMAGES,
    )  # fmt: skip
    specs = [runner.spec(name, candidate.id, DEFAULT, fold=fold)
             for name, fold in (("finetune", 0), ("finetune", 1), ("probe", 0))]  # fmt: skip
    first, second, head = (runner.attempt(Trial(number=number, spec=each)).result for number, each in enumerate(specs))
    return World(task=task, candidate=candidate, workdir=workdir, first=first, second=second, head=head)


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """The same for each test, in a work directory of its own."""
    shutil.copytree(made.workdir, tmp_path / "w")
    return replace(made, workdir=tmp_path / "w")


def is_of(found: Joined, trial: TrialResult, *, world: World) -> bool:
    """Whether it has the weights and the test logits of this trial alone."""
    kept = load_trial(world.workdir, trial)
    return (
        found.fits == 1
        and np.array_equal(found.checkpoint.weight, kept.weight)
        and np.array_equal(found.checkpoint.test_logits, kept.test_logits)
    )


def judged(found: Joined, *trials: TrialResult, world: World) -> bool:
    """Whether its held-out images are those of these trials, each judged by the one that left it out."""
    parts = [np.sort(world.task.folds[each.spec.fold]) for each in trials]
    said = [log_probabilities(load_trial(world.workdir, each).held_out_logits) for each in trials]
    return np.array_equal(found.held_out.rows, np.sort(np.concatenate(parts))) and all(
        np.array_equal(found.held_out.at(part), logs) for part, logs in zip(parts, said, strict=True)
    )


def right(said: np.ndarray, rows: np.ndarray, task: Task) -> float:
    return float((said == task.labels[rows]).mean())


def test_one_fit_stands_alone(world: World) -> None:
    found = world.join(world.first, world.head)
    assert found.trial == world.first
    assert is_of(found, world.first, world=world)
    assert judged(found, world.first, world=world)


def test_two_fits_are_one_model_whose_figures_are_its_own(world: World) -> None:
    task, both = world.task, (world.first, world.second)
    found = world.join(*both, world.head)
    assert judged(found, *both, world=world)
    one, other = (load_trial(world.workdir, each).visual for each in both)
    for name, mean in found.checkpoint.visual.items():
        expected = (one[name].double() + other[name]) / 2 if mean.is_floating_point() else one[name]
        torch.testing.assert_close(mean, expected.to(mean.dtype))
    best = export_best(calibrated(found, task=task), world.trials)
    assert (best.fits, best.trial) == (2, world.first.number)
    rows = np.sort(task.test)
    said = predict(best.model_dir, [task.root / task.paths[row] for row in rows])
    assert best.test == best.on_test.metric == right(said.best, rows, task)
    assert best.validation == pytest.approx(right(found.held_out.logs.argmax(axis=1), found.held_out.rows, task))
    about = read_classifier(best.model_dir).about
    assert (about["test"], about["validation"]) == (best.test, best.validation)
    sure = softmax(calibrated(found, task=task).checkpoint.test_logits, axis=1)
    np.testing.assert_allclose(said.probabilities, sure, atol=1e-4)


def test_an_ensemble_has_the_mean_tower(world: World) -> None:
    task, results = world.task, (world.first, world.second, world.head)
    members = [Member(trial=each[0], held_out=world.join(*each).held_out) for each in (results, (world.head,))]
    pool = Pool(members=members, weights=[1.0, 0.01])
    found = export_ensemble(pool, world.trials, joined=lambda trial: world.join(trial, *results))
    rows = np.sort(task.test)
    said = predict(found.model_dir, [task.root / task.paths[row] for row in rows])
    assert found.test == right(said.best, rows, task)
    of_mean, of_head = (
        log_probabilities(world.join(*each).checkpoint.test_logits) for each in (results, (world.head,))
    )
    np.testing.assert_allclose(said.probabilities, softmax(of_mean + 0.01 * of_head, axis=1), atol=1e-4)


def test_what_a_fit_without_weights_says_still_counts(world: World, made: World) -> None:
    keep_held_out_alone(world.workdir, world.second)
    found = world.join(world.first, world.second)
    assert is_of(found, world.first, world=world)
    assert judged(found, world.first, world.second, world=made)


def spoil(world: World, *, damaged: bool) -> None:
    """The second fit ended far from the first; or its file is damaged."""
    kept = load_trial(world.workdir, world.second)
    file = save_weights(world.workdir, world.second.number, replace(kept, weight=5 * np.roll(kept.weight, 1, axis=0)))
    if damaged:
        file.write_bytes(file.read_bytes()[:50])


def test_a_mean_that_knows_images_worse_than_its_fits_did_unseen_is_not_used(world: World, made: World) -> None:
    spoil(world, damaged=False)
    found = world.join(world.first, world.second)
    assert is_of(found, world.first, world=world)
    assert judged(found, world.first, world.second, world=made)
    assert found.trial.validation_images == len(found.held_out.rows)


def test_damage_to_a_further_fit_costs_that_fit_alone(world: World) -> None:
    spoil(world, damaged=True)
    found = world.join(world.first, world.second)
    assert is_of(found, world.first, world=world)
    assert judged(found, world.first, world=world)


def test_heads_are_never_averaged(world: World) -> None:
    twin = replace(world.head, number=9, spec=replace(world.head.spec, fold=1))
    shutil.copytree(trial_dir(world.workdir, world.head.number), trial_dir(world.workdir, twin.number))
    found = world.join(world.head, twin)
    assert is_of(found, world.head, world=world)
    assert np.array_equal(found.held_out.rows, splits(world.task).labelled)


def test_a_fit_that_time_cut_is_not_joined(world: World) -> None:
    late = replace(world.second, out_of_time=True)
    for results in ((world.first, late), (late, world.first)):
        found = world.join(*results)
        assert found.trial == results[0]
        assert is_of(found, results[0], world=world)
        assert judged(found, results[0], world=world)


class KilledError(BaseException):
    """As abrupt as a kill: nothing of the search runs after it."""


def test_a_kill_between_weights_and_result_or_before_the_mean_is_exported_loses_nothing(
    task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    workdir, write = tmp_path / "w", save_result

    def search(sink: Callable[[Event], object] = print) -> vlmsel_auto.SearchResult:
        return vlmsel_auto.search(
            task.root, candidates=[candidates[0].id], method="finetune", budget=Budget(trials=2), workdir=workdir,
            library=assemble([]), learn=False, ensemble=1, thumbnails=False, sink=sink,
        )  # fmt: skip

    def killed(folder: Path, result: TrialResult) -> None:
        if result.number == 1:
            raise KilledError
        write(folder, result)

    def killed_at_export(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "report":
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlmsel_auto.study.results.save_result", killed)
        with pytest.raises(KilledError):
            search()
    (first,) = read_results(workdir)
    assert (trial_dir(workdir, 1) / "weights.safetensors").exists()
    with pytest.raises(KilledError):
        search(killed_at_export)
    before = read_results(workdir)
    assert before[0] == first
    assert [(each.state, each.spec.fold) for each in before] == [(TrialState.COMPLETE, 0), (TrialState.COMPLETE, 1)]
    for each in before:  # weights and figure are of the same fit
        said = load_trial(workdir, each).test_logits
        assert each.test == float((said.argmax(axis=1) == task.labels[np.sort(task.test)]).mean())
    assert read_classifier(workdir / "model").about["trial"] == first.number  # the best so far
    done = search()
    assert done.trials == before
    assert done.best.fits == 2
    assert done.best.test == read_classifier(done.best.model_dir).about["test"]


def kept(logits: np.ndarray) -> Checkpoint:
    rng = np.random.default_rng(1)
    return Checkpoint(
        visual=None, weight=rng.normal(size=(4, 8)).astype(np.float32), bias=np.arange(4, dtype=np.float32), scale=20.0,
        held_out_logits=logits.astype(np.float32), test_logits=rng.normal(size=(5, 4)).astype(np.float32),
    )  # fmt: skip


def alone(checkpoint: Checkpoint, held_out: HeldOut | None) -> Joined:
    trial = TrialResult(number=0, spec=spec(), state=TrialState.COMPLETE, origin=TrialOrigin.PLANNED, validation=0.8,
                        test=None, curve=(), epochs_run=1, seconds=1.0)  # fmt: skip
    return Joined(trial=trial, fits=1, held_out=held_out, checkpoint=checkpoint)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 3.0))
def test_held_out_images_set_the_temperature_and_no_class_changes_places(seed: int, sharp: float) -> None:
    task = digits()
    rows = np.sort(task.val)
    labels = task.labels[rows]
    rng = np.random.default_rng(seed)
    logits = sharp * (rng.normal(0, 1, (len(labels), 4)) + 1.5 * np.eye(4)[labels])
    before = alone(kept(logits), HeldOut(rows=rows, logs=log_probabilities(logits)))
    after = calibrated(before, task=task)

    def loss(sureness: float) -> float:
        logs = log_softmax(sureness * logits, axis=1)
        return -logs[np.arange(len(labels)), labels].sum() + 2.0 * (sureness - 1) ** 2

    best = minimize_scalar(loss, bounds=(0.05, 4.0), method="bounded", options={"xatol": 1e-8}).x
    for name in ("weight", "bias", "test_logits"):
        assert np.allclose(
            getattr(after.checkpoint, name), best * getattr(before.checkpoint, name), rtol=1e-2, atol=1e-4
        )
    assert np.allclose(after.held_out.logs, log_softmax(best * logits, axis=1), rtol=1e-2, atol=1e-2)
    assert after.checkpoint.scale == before.checkpoint.scale
    said = after.checkpoint.test_logits.argmax(axis=1)
    assert np.array_equal(said, before.checkpoint.test_logits.argmax(axis=1))


def test_without_held_out_images_the_classifier_stays() -> None:
    before = alone(kept(np.zeros((1, 4))), None)
    assert calibrated(before, task=digits()) is before
