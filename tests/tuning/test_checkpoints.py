"""Weights, results and what a trial says of held-out images, on file."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.opened_study import result
from helpers.stored_results import read_results, saying
from helpers.tuning_world import spec
from vlmsel_auto.errors import TrialUnavailable, WorkdirError
from vlmsel_auto.records import TrialOrigin, TrialResult, TrialState
from vlmsel_auto.tuning.checkpoints import (
    Checkpoint,
    drop_weights,
    has_weights,
    keep_held_out_alone,
    load_trial,
    read_held_out,
    read_result,
    result_from_json,
    result_to_json,
    save_result,
    save_weights,
    size_of_weights,
)


def test_weights_come_back_and_damage_is_said(tmp_path: Path) -> None:
    visual = {"a": torch.arange(6.0).reshape(2, 3)}
    made = Checkpoint(visual=visual, weight=np.ones((2, 3), np.float32), bias=np.zeros(2, np.float32), scale=33.3)
    path = save_weights(tmp_path, 3, made)
    assert has_weights(tmp_path, 3)
    assert size_of_weights(tmp_path, 3) == len(path.read_bytes())
    found = load_trial(tmp_path, result(3))
    assert found.scale == 33.3
    assert np.array_equal(found.weight, made.weight)
    assert torch.equal((found.visual or {})["a"], visual["a"])
    head_only = Checkpoint(visual=None, weight=made.weight, bias=made.bias, scale=1.0)
    save_weights(tmp_path, 4, head_only)
    assert load_trial(tmp_path, result(4)).visual is None
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(TrialUnavailable, match="Trial 3 has no sound weights"):
        load_trial(tmp_path, result(3))
    drop_weights(tmp_path, 3)
    assert not has_weights(tmp_path, 3)
    assert size_of_weights(tmp_path, 3) == 0


def test_results_come_back_in_order(tmp_path: Path) -> None:
    made = TrialResult(
        number=7, spec=spec(), state=TrialState.PRUNED, origin=TrialOrigin.SAMPLED, validation=0.5, test=None,
        curve=(0.4, 0.5), epochs_run=2, seconds=1.5, out_of_time=True,
    )  # fmt: skip
    save_result(tmp_path, made)
    save_result(tmp_path, dataclasses.replace(made, number=2))
    assert read_result(tmp_path, 7) == made
    assert read_result(tmp_path, 8) is None
    assert [each.number for each in read_results(tmp_path)] == [2, 7]
    assert result_from_json(result_to_json(made)) == made
    with pytest.raises(WorkdirError, match="cannot be read"):
        result_from_json('{"number": 1}')


@pytest.mark.parametrize("place", [0.02, 0.5, 0.97])
def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path, place: float) -> None:
    def flip(path: Path) -> None:
        damaged = bytearray(path.read_bytes())
        damaged[int(place * len(damaged))] ^= 1
        path.write_bytes(bytes(damaged))

    visual = {"a": torch.arange(60.0).reshape(20, 3)}
    made = Checkpoint(visual=visual, weight=np.ones((2, 3), np.float32), bias=np.zeros(2, np.float32), scale=33.3)
    flip(save_weights(tmp_path, 3, made))
    with pytest.raises(TrialUnavailable, match="no sound weights"):
        load_trial(tmp_path, result(3))
    save_result(tmp_path, result(3))
    flip(tmp_path / "trials" / "0003" / "result.json")
    with pytest.raises(WorkdirError, match="cannot be read"):
        read_result(tmp_path, 3)


SAID = np.arange(6, dtype=np.float32).reshape(3, 2)
TRIAL = result(1)


def test_predictions_outlive_the_weights(tmp_path: Path) -> None:
    save_weights(tmp_path, 1, saying(SAID))
    assert read_held_out(tmp_path, TRIAL) is None  # the weights have them still
    keep_held_out_alone(tmp_path, TRIAL)
    assert not has_weights(tmp_path, 1)
    found = read_held_out(tmp_path, TRIAL)
    assert found is not None
    assert np.array_equal(found, SAID)
    assert read_held_out(tmp_path, replace(TRIAL, number=2)) is None


def test_a_trial_that_says_nothing_loses_its_weights_alone(tmp_path: Path) -> None:
    save_weights(tmp_path, 1, saying())
    keep_held_out_alone(tmp_path, TRIAL)
    assert not has_weights(tmp_path, 1)
    assert read_held_out(tmp_path, TRIAL) is None


def test_damaged_weights_leave_no_predictions(tmp_path: Path) -> None:
    save_weights(tmp_path, 1, saying(SAID))
    (tmp_path / "trials" / "0001" / "weights.safetensors").write_bytes(b"no tensors")
    keep_held_out_alone(tmp_path, TRIAL)
    assert not has_weights(tmp_path, 1)
    assert read_held_out(tmp_path, TRIAL) is None


@pytest.mark.parametrize("change", [lambda held: held[:-1] + b"x", lambda held: held[:10]])
def test_damaged_predictions_are_none_and_the_log_says_so(
    tmp_path: Path, change: object, caplog: pytest.LogCaptureFixture
) -> None:
    save_weights(tmp_path, 1, saying(SAID))
    keep_held_out_alone(tmp_path, TRIAL)
    file = tmp_path / "trials" / "0001" / "held-out.safetensors"
    file.write_bytes(change(file.read_bytes()))
    assert read_held_out(tmp_path, TRIAL) is None
    assert f"{file} is damaged" in caplog.text


def test_what_was_never_kept_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_held_out(tmp_path, TRIAL) is None
    assert caplog.text == ""
