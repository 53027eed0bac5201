from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.tuning_world import spec
from vlmsel_auto.records import TrialOrigin, TrialResult, TrialState
from vlmsel_auto.tuning.checkpoints import Checkpoint, has_weights, save_weights
from vlmsel_auto.tuning.held_out import keep_held_out_alone, read_held_out

SAID = np.arange(6, dtype=np.float32).reshape(3, 2)
TRIAL = TrialResult(
    number=1, spec=spec(), state=TrialState.COMPLETE, origin=TrialOrigin.SAMPLED, validation=0.8, test=0.7,
    curve=(0.8,), epochs_run=1, seconds=1.0,
)  # fmt: skip


def save(workdir: Path, held_out: np.ndarray | None) -> None:
    weight = np.ones((2, 3), np.float32)
    save_weights(
        workdir, 1, Checkpoint(visual=None, weight=weight, bias=weight[:, 0], scale=1.0, held_out_logits=held_out)
    )


def test_predictions_outlive_the_weights(tmp_path: Path) -> None:
    save(tmp_path, SAID)
    assert read_held_out(tmp_path, TRIAL) is None  # the weights have them still
    keep_held_out_alone(tmp_path, TRIAL)
    assert not has_weights(tmp_path, 1)
    found = read_held_out(tmp_path, TRIAL)
    assert found is not None
    assert np.array_equal(found, SAID)
    assert read_held_out(tmp_path, replace(TRIAL, number=2)) is None


def test_a_trial_that_says_nothing_loses_its_weights_alone(tmp_path: Path) -> None:
    save(tmp_path, None)
    keep_held_out_alone(tmp_path, TRIAL)
    assert not has_weights(tmp_path, 1)
    assert read_held_out(tmp_path, TRIAL) is None


def test_damaged_weights_leave_no_predictions(tmp_path: Path) -> None:
    save(tmp_path, SAID)
    (tmp_path / "trials" / "0001" / "weights.safetensors").write_bytes(b"no tensors")
    keep_held_out_alone(tmp_path, TRIAL)
    assert not has_weights(tmp_path, 1)
    assert read_held_out(tmp_path, TRIAL) is None


@pytest.mark.parametrize("change", [lambda held: held[:-1] + b"x", lambda held: held[:10]])
def test_damaged_predictions_are_none_and_the_log_says_so(
    tmp_path: Path, change: object, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, SAID)
    keep_held_out_alone(tmp_path, TRIAL)
    file = tmp_path / "trials" / "0001" / "held-out.safetensors"
    file.write_bytes(change(file.read_bytes()))
    assert read_held_out(tmp_path, TRIAL) is None
    assert f"{file} is damaged" in caplog.text


def test_what_was_never_kept_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_held_out(tmp_path, TRIAL) is None
    assert caplog.text == ""
