from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.tuning_world import NAME, digits
from vlmsel_auto.cache import Store
from vlmsel_auto.errors import CandidateError, TrialDiverged, TrialUnavailable
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.records import Candidate, TrialOrigin
from vlmsel_auto.study.runner import TrialRunner
from vlmsel_auto.tuning.methods import METHODS
from vlmsel_auto.tuning.work import never


def runner(path: Path) -> TrialRunner:
    return TrialRunner(
        task=digits(), table={NAME: resolve(NAME)[0]}, methods={each.name: each for each in METHODS}, load=zoo.load,
        store=Store(path / "store"), workdir=path, device=torch.device("cpu"), train_shots=None, images_per_trial=1_000,
        seed=3,
    )  # fmt: skip


def attempt(made: TrialRunner, method: str = "zero_shot") -> object:
    spec = made.spec(method, NAME, DEFAULT)
    return made.attempt(spec, number=0, origin=TrialOrigin.PLANNED, report=never, deadline=None)


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
