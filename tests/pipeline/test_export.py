"""What is exported of a study that chose nothing, and the temperature of what is exported."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from helpers.report_world import make_ranking, make_trial
from helpers.tuning_world import digits, spec
from vlmsel_auto.pipeline.export import calibrated, export_best
from vlmsel_auto.records import StoppedBy
from vlmsel_auto.study.study import StudyOutcome
from vlmsel_auto.tuning.checkpoints import Checkpoint


@pytest.mark.parametrize("best", [None, replace(make_trial(0, "a", validation=0.9), validation=None)])
def test_without_a_measured_trial_nothing_is_exported(tmp_path, best):
    outcome = StudyOutcome(
        results=(),
        best=best,
        members=(),
        plan=None,
        ranking=make_ranking(),
        seconds=1.0,
        stopped_by=StoppedBy.BUDGET,
        failures={},
        runner=None,
    )
    events = []
    assert export_best(outcome, task=None, candidates=(), workdir=tmp_path, sink=events.append) is None
    assert events == []
    assert list(tmp_path.iterdir()) == []


def kept(logits: np.ndarray) -> Checkpoint:
    rng = np.random.default_rng(1)
    return Checkpoint(
        visual=None, weight=rng.normal(size=(4, 8)).astype(np.float32), bias=np.arange(4, dtype=np.float32), scale=20.0,
        held_out_logits=logits.astype(np.float32), test_logits=rng.normal(size=(5, 4)).astype(np.float32),
    )  # fmt: skip


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 3.0))
def test_held_out_images_set_the_temperature_and_no_class_changes_places(seed: int, sharp: float) -> None:
    task = digits()
    labels = task.labels[np.sort(task.val)]
    rng = np.random.default_rng(seed)
    logits = sharp * (rng.normal(0, 1, (len(labels), 4)) + 1.5 * np.eye(4)[labels])
    trial = replace(make_trial(0, "a"), spec=spec(method="finetune"))
    before, after = kept(logits), calibrated(kept(logits), trial=trial, task=task)

    def loss(sureness: float) -> float:
        logs = log_softmax(sureness * logits.astype(np.float32).astype(np.float64), axis=1)
        return -logs[np.arange(len(labels)), labels].sum() + 2.0 * (sureness - 1) ** 2

    best = minimize_scalar(loss, bounds=(0.05, 4.0), method="bounded", options={"xatol": 1e-8}).x
    for name in ("weight", "bias", "held_out_logits", "test_logits"):
        assert np.allclose(getattr(after, name), best * getattr(before, name), rtol=1e-2, atol=1e-4)
    assert after.scale == before.scale
    assert np.array_equal(after.test_logits.argmax(axis=1), before.test_logits.argmax(axis=1))


def test_without_held_out_images_the_classifier_stays() -> None:
    trial = replace(make_trial(0, "a"), spec=spec(method="finetune"))
    before = replace(kept(np.zeros((1, 4))), held_out_logits=None)
    assert calibrated(before, trial=trial, task=digits()) is before
