import math
import re
import time
from pathlib import Path

import pytest
import torch

from helpers.tuning_world import candidate, digits, run, spec, store
from vlmsel_auto.cache import Store
from vlmsel_auto.errors import TrialDiverged
from vlmsel_auto.records import Candidate
from vlmsel_auto.tuning.checkpoints import has_weights, load_trial
from vlmsel_auto.tuning.finetune import batch_size
from vlmsel_auto.tuning.work import Deadline

__all__ = ["candidate", "store"]  # fixtures


def test_probe_by_the_same_door(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    result = run(tmp_path, candidate, store, spec(method="probe", settings={}, epochs=0))
    assert result.state == "complete"
    assert result.test is not None
    assert load_trial(tmp_path, result).visual is None
    begun = time.process_time()
    run(tmp_path, candidate, store, spec(method="probe", settings={}, epochs=0))
    assert time.process_time() - begun < 1.0  # features are cached


def test_zero_epochs_are_zero_shot(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    tuned = run(tmp_path, candidate, store, spec(epochs=0))
    probed = run(tmp_path, candidate, store, spec(method="zero_shot", settings={}, epochs=0))
    assert tuned.validation == probed.validation == tuned.start
    assert tuned.test == probed.test
    assert tuned.kept_epoch == 0


def test_pruning_ends_gracefully_without_weights(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    result = run(tmp_path, candidate, store, spec(epochs=4), report=lambda epoch, _validation, _loss: epoch == 2)
    assert result.state == "pruned"
    assert result.epochs_run == 2
    assert result.reason.startswith("pruned after 2 of 4 epochs")
    assert result.test is None
    assert not has_weights(tmp_path, 5)


def test_deadline_ends_a_trial_with_what_it_has(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    begun = time.monotonic()
    result = run(tmp_path, candidate, store, spec(epochs=100_000), deadline=time.monotonic() + 3.0)
    assert time.monotonic() - begun < 20.0  # all epochs would take hours; tests run on busy machines
    assert result.state == "pruned"
    assert re.match(r"the time budget ended (after|in epoch) \d+ of 100000", result.reason)
    assert result.validation is not None
    over = run(tmp_path, candidate, store, spec(), deadline=time.monotonic() - 1)
    assert over.state == "pruned"
    assert over.curve == ()
    head = run(tmp_path, candidate, store, spec(method="probe", settings={}, epochs=0), deadline=time.monotonic() - 1)
    assert head.reason == "the time budget ended before it had learned"


def test_an_epoch_that_time_cut_short_is_said_and_counted_as_a_part(
    tmp_path: Path, candidate: Candidate, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = len(digits().train)
    steps = math.ceil(images / batch_size(images, torch.device("cpu")))
    assert steps > 2
    asked = iter(range(steps * 4))

    def passed(_: Deadline, *, reserve: float = 0.0) -> bool:
        return reserve > 0 and next(asked) == steps + 1  # training asks after each step: the second of epoch 2

    monkeypatch.setattr(Deadline, "passed", passed)
    result = run(tmp_path, candidate, store, spec(epochs=4))
    assert (result.epochs_run, result.out_of_time) == (2, True)
    assert result.reason == "the time budget ended in epoch 2 of 4"
    assert result.fidelity == pytest.approx((steps + 2) / (4 * steps))


def test_divergence(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    with pytest.raises(TrialDiverged, match="lower the learning rate"):
        run(tmp_path, candidate, store, spec(learning_rate=1e30, epochs=2))
