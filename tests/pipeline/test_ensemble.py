"""The mean of several candidates: chosen by loss, exported, and the same when its folder predicts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.study_world import candidates, digits_folder, ranking, task
from vlmsel_auto.models import zoo
from vlmsel_auto.models.prediction import predict
from vlmsel_auto.pipeline.ensemble import export_ensemble
from vlmsel_auto.records import Budget, Candidate, Task, TrialResult
from vlmsel_auto.study.study import StudyOutcome, run_study
from vlmsel_auto.tuning.checkpoints import load_trial, save_weights

__all__ = ["candidates", "digits_folder", "task"]  # fixtures


@pytest.fixture(scope="module")
def finished(
    task: Task, candidates: tuple[Candidate, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudyOutcome, Path]:
    workdir = tmp_path_factory.mktemp("study")
    outcome = run_study(
        task=task, candidates=candidates, ranking=ranking(), budget=Budget(trials=4), workdir=workdir, load=zoo.load,
        methods=("zero_shot", "probe"), top_k=4,
    )  # fmt: skip
    return outcome, workdir


def shares(workdir: Path, trial: TrialResult, *, of_test: bool) -> np.ndarray:
    kept = load_trial(workdir, trial.number)
    logits = kept.test_logits if of_test else kept.held_out_logits
    return torch.from_numpy(logits).double().softmax(dim=1).numpy()


def loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return -float(np.log(probabilities[np.arange(len(labels)), labels]).mean())


def test_members_are_the_best_trials_of_different_candidates(finished: tuple[StudyOutcome, Path]) -> None:
    outcome, _ = finished
    assert outcome.members[0] == outcome.best
    assert len({each.spec.candidate for each in outcome.members}) == len(outcome.members) == 4
    assert all(each.origin != "floor" for each in outcome.members)


def test_an_ensemble_is_exported_where_its_loss_is_smaller(
    finished: tuple[StudyOutcome, Path], task: Task, candidates: tuple[Candidate, ...]
) -> None:
    outcome, workdir = finished
    arguments = {"task": task, "candidates": candidates, "workdir": workdir, "sink": print}
    labelled, test = np.sort(np.concatenate([task.train, task.val])), np.sort(task.test)
    for size in (2, 4):
        chosen = outcome.members[:size]
        mean = np.mean([shares(workdir, each, of_test=False) for each in chosen], axis=0)
        better = loss(mean, task.labels[labelled]) < loss(
            shares(workdir, chosen[0], of_test=False), task.labels[labelled]
        )
        made = export_ensemble(outcome.members, size=size, **arguments)
        assert (made is not None) == better
        if made is None:
            continue
        assert made.members == tuple(each.spec.candidate for each in chosen)
        assert made.validation == (mean.argmax(axis=1) == task.labels[labelled]).mean()
        assert made.validation_images == len(labelled)
        of_test = np.mean([shares(workdir, each, of_test=True) for each in chosen], axis=0)
        assert made.test == (of_test.argmax(axis=1) == task.labels[test]).mean()
        said = predict(made.model_dir, [task.root / task.paths[row] for row in test])
        assert np.allclose(said.probabilities, of_test, atol=1e-4)
        assert (said.best == task.labels[test]).mean() == made.test
    assert export_ensemble(outcome.members, size=1, **arguments) is None
    assert export_ensemble(outcome.members, size=0, **arguments) is None


def test_worse_members_give_no_ensemble_and_an_earlier_one_goes(
    finished: tuple[StudyOutcome, Path], task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    outcome, workdir = finished
    first, second = outcome.members[:2]
    kept = load_trial(workdir, first.number)
    right = np.eye(task.n_classes, dtype=np.float32)[task.labels[np.sort(np.concatenate([task.train, task.val]))]] * 9
    save_weights(tmp_path, first.number, replace(kept, held_out_logits=right))
    save_weights(tmp_path, second.number, replace(load_trial(workdir, second.number), held_out_logits=-right))
    arguments = {"task": task, "candidates": candidates, "workdir": tmp_path, "sink": print}
    assert export_ensemble((second, first), size=2, **arguments) is not None
    assert (tmp_path / "ensemble").exists()
    assert export_ensemble((first, second), size=2, **arguments) is None
    assert not (tmp_path / "ensemble").exists()


def test_beside_a_tower_the_validation_images_decide(
    finished: tuple[StudyOutcome, Path], task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    outcome, workdir = finished
    first, second = outcome.members[:2]
    labelled, val = np.sort(np.concatenate([task.train, task.val])), np.sort(task.val)
    right = np.eye(task.n_classes, dtype=np.float32)[task.labels] * 9
    wrong = -right[labelled]
    wrong[np.searchsorted(labelled, val)] = right[val] / 9  # of a head that is right on the validation images alone
    save_weights(tmp_path, first.number, replace(load_trial(workdir, first.number), held_out_logits=wrong))
    tower = replace(load_trial(workdir, second.number), held_out_logits=right[val])
    save_weights(tmp_path, second.number, tower)
    arguments = {"task": task, "candidates": candidates, "workdir": tmp_path, "sink": print}
    made = export_ensemble((first, second), size=2, **arguments)
    assert made is not None
    assert (made.validation, made.validation_images) == (1.0, len(val))


def test_weights_that_are_gone_are_told_and_cost_no_search(
    finished: tuple[StudyOutcome, Path], task: Task, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    told = []
    outcome, _ = finished
    arguments = {"task": task, "candidates": candidates, "workdir": tmp_path, "sink": told.append}
    assert export_ensemble(outcome.members, size=4, **arguments) is None
    assert "no ensemble was exported" in told[0].text
