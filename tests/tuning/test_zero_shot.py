from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tuning_world import Tune, candidate, digits, run, spec, store, tune
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.records import Candidate
from vlmsel_auto.tuning.checkpoints import load_trial

__all__ = ["candidate", "store", "tune"]  # fixtures


def test_zero_shot_is_what_the_model_itself_says(tune: Tune, tmp_path: Path, candidate: Candidate) -> None:
    result = tune(spec(method="zero_shot", settings={}, epochs=0))
    task, model = digits(), zoo.load(candidate)
    text = model.text_features(task.prompts, task.templates)
    with torch.no_grad():
        for indices, measured in ((task.val, result.validation), (task.test, result.test)):
            pixels = task.pixels.read(candidate.view, np.sort(indices))
            unit = torch.nn.functional.normalize(model.embed(model.normalise(pixels)), dim=-1)
            assert ((unit @ text.T).argmax(dim=1).numpy() == task.labels[np.sort(indices)]).mean() == measured
    assert (result.state, result.epochs_run, result.kept_epoch, result.curve) == ("complete", 0, 0, ())
    assert np.allclose(load_trial(tmp_path, result).weight, text.numpy())
    tuned = tune(spec(epochs=0))
    assert (tuned.validation, tuned.test) == (result.validation, result.test)
    assert tuned.soft_validation == pytest.approx(result.soft_validation, abs=1e-6)


def test_without_time_there_is_no_baseline(tmp_path: Path, candidate: Candidate) -> None:
    late = run(
        tmp_path, candidate, Store(tmp_path / "s"), spec(method="zero_shot", settings={}, epochs=0), deadline=0.0
    )
    assert (late.state, late.out_of_time, late.validation) == ("pruned", True, None)
