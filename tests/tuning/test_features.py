from pathlib import Path

import numpy as np
import torch

from helpers.tuning_world import candidate, digits, spec
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.records import Candidate
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.features import features_of
from vlmsel_auto.tuning.work import Deadline, Work, never

__all__ = ["candidate"]  # a fixture


def test_features_are_the_models_own_and_made_once(tmp_path: Path, candidate: Candidate) -> None:
    task, loads = digits(), []

    def load(one: Candidate) -> zoo.LoadedModel:
        loads.append(one.id)
        return zoo.load(one)

    work = Work(
        spec=spec(), task=task, candidate=candidate, splits=splits(task), load=load, store=Store(tmp_path), hook=never,
        deadline=Deadline(), workdir=tmp_path, device=torch.device("cpu"),
    )  # fmt: skip
    found = features_of(work)
    wanted = np.array([task.test[3], task.train[5], task.val[0]])  # in any order
    model = zoo.load(candidate)
    with torch.no_grad():
        embedded = model.embed(model.normalise(task.pixels.read(candidate.view, wanted)))
    assert torch.allclose(found.of(wanted), torch.nn.functional.normalize(embedded, dim=-1), atol=1e-5)
    assert torch.allclose(found.text, model.text_features(task.prompts, task.templates), atol=1e-6)
    assert found.scale <= 100
    assert torch.equal(features_of(work).values, found.values)
    assert loads == [candidate.id]
