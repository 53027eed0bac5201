"""The clock and the features of a trial."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tuning_world import candidate, digits, spec
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.records import Candidate
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.work import NOTHING, Deadline, DeadlineReached, Ending, Work, never

__all__ = ["candidate"]  # fixtures


def test_a_deadline_is_checked_with_a_reserve() -> None:
    Deadline().check(reserve=1e9)  # None never comes
    soon = Deadline(time.monotonic() + 60)
    assert not soon.passed()
    assert soon.passed(reserve=61)
    with pytest.raises(DeadlineReached):
        soon.check(reserve=61)


def test_nothing_is_a_trial_that_the_clock_ended() -> None:
    assert NOTHING.ending is Ending.DEADLINE
    assert NOTHING.checkpoint is None
    assert not never(1, 0.5, 0.5)


def test_features_are_the_models_own_and_made_once(tmp_path: Path, candidate: Candidate) -> None:
    task, loads = digits(), []

    def load(one: Candidate) -> zoo.LoadedModel:
        loads.append(one.id)
        return zoo.load(one)

    work = Work(
        spec=spec(), task=task, candidate=candidate, splits=splits(task), load=load, store=Store(tmp_path), hook=never,
        deadline=Deadline(), workdir=tmp_path, device=torch.device("cpu"),
    )  # fmt: skip
    found = work.features()
    wanted = np.array([task.test[3], task.train[5], task.val[0]])  # in any order
    model = zoo.load(candidate)
    with torch.no_grad():
        embedded = model.embed(model.normalise(task.pixels.read(candidate.view, wanted)))
    assert torch.allclose(found.of(wanted), torch.nn.functional.normalize(embedded, dim=-1), atol=1e-5)
    assert torch.allclose(found.text, model.text_features(task.prompts, task.templates), atol=1e-6)
    assert found.scale <= 100
    assert torch.equal(work.features().values, found.values)
    assert loads == [candidate.id]
