"""A trial, whatever becomes of it, and what those of a search have in common."""

import math
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.tuning_world import NAME, Tune, candidate, digits, runner, spec, store, tune
from vlmsel_auto.errors import CandidateError, TrialDiverged, TrialUnavailable
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.records import Candidate
from vlmsel_auto.tuning.checkpoints import has_weights
from vlmsel_auto.tuning.finetune import batch_size
from vlmsel_auto.tuning.paused import has_paused
from vlmsel_auto.tuning.runner import Trial, TrialRunner
from vlmsel_auto.tuning.work import Deadline

__all__ = ["candidate", "store", "tune"]  # fixtures


def attempt(made: TrialRunner, method: str = "zero_shot") -> object:
    spec = made.spec(method, NAME, DEFAULT)
    return made.attempt(Trial(number=0, spec=spec))


def test_settings_follow_the_task_and_costs_the_methods(tmp_path: Path) -> None:
    made = runner(tmp_path)
    assert (made.sizes.train, made.sizes.val, made.sizes.test) == (40, 20, 20)
    assert made.spec("finetune", NAME, DEFAULT).epochs == 25  # 1,000 images in trials of 40
    assert made.spec("finetune", NAME, DEFAULT).seed == 3
    costs = made.relative_costs()
    assert costs["zero_shot"] == costs["probe"] == 1.0 < costs["finetune"]
    few = replace(made, train_shots=2)
    assert few.sizes.train == 8


@pytest.mark.parametrize(
    ("error", "reason", "gone"),
    [
        (TrialUnavailable("weights are missing, but got 'x'"), "weights are missing, but got 'x'", True),
        (CandidateError("no such folder"), "no such folder", True),
        (TrialDiverged("the loss became nan"), "the loss became nan", False),
        (RuntimeError("an operator that the device lacks"), "RuntimeError: an operator that the device lacks", False),
    ],
)
def test_no_failure_ends_the_run(tmp_path: Path, error: Exception, reason: str, gone: bool) -> None:  # noqa: FBT001
    def load(candidate: Candidate) -> LoadedModel:
        raise error

    found = attempt(replace(runner(tmp_path), load=load))
    assert (found.result.state, found.result.reason) == ("failed", reason)
    assert found.unavailable == (reason if gone else "")


def test_a_full_disk_ends_it(tmp_path: Path) -> None:
    def load(candidate: Candidate) -> LoadedModel:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        attempt(replace(runner(tmp_path), load=load))


def test_an_attempt_has_its_result(tmp_path: Path) -> None:
    found = attempt(runner(tmp_path))
    assert (found.result.state, found.unavailable) == ("complete", "")


def test_pruning_ends_gracefully_without_weights(tune: Tune, tmp_path: Path) -> None:
    result = tune(spec(epochs=4), report=lambda epoch, _validation, _loss: epoch == 2)
    assert (result.state, result.epochs_run, result.fidelity, result.continues) == ("pruned", 2, 0.5, None)
    assert result.reason.startswith("pruned after 2 of 4 epochs")
    assert result.test is None
    assert not has_weights(tmp_path, 5)
    assert not has_paused(tmp_path, 5)


def test_deadline_ends_a_trial_with_what_it_has(tune: Tune) -> None:
    begun = time.monotonic()
    result = tune(spec(epochs=100_000), deadline=time.monotonic() + 3.0)
    assert time.monotonic() - begun < 20.0  # all epochs would take hours; tests run on busy machines
    assert result.state == "pruned"
    assert re.match(r"the time budget ended (after|in epoch) \d+ of 100000", result.reason)
    assert result.validation is not None
    over = tune(spec(), deadline=time.monotonic() - 1)
    assert over.state == "pruned"
    assert over.curve == ()
    head = tune(spec(method="probe", settings={}, epochs=0), deadline=time.monotonic() - 1)
    assert head.reason == "the time budget ended before it had learned"


def test_an_epoch_that_time_cut_short_is_said_and_counted_as_a_part(
    tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = len(digits().train)
    steps = math.ceil(images / batch_size(images, torch.device("cpu")))
    assert steps > 2
    asked = iter(range(steps * 4))

    def passed(_: Deadline, *, reserve: float = 0.0) -> bool:
        return reserve > 0 and next(asked) == steps + 1  # training asks after each step: the second of epoch 2

    monkeypatch.setattr(Deadline, "passed", passed)
    result = tune(spec(epochs=4))
    assert (result.epochs_run, result.out_of_time) == (2, True)
    assert result.reason == "the time budget ended in epoch 2 of 4"
    assert result.fidelity == pytest.approx((steps + 2) / (4 * steps))


def test_divergence(tune: Tune) -> None:
    with pytest.raises(TrialDiverged, match="lower the learning rate"):
        tune(spec(learning_rate=1e30, epochs=2))
