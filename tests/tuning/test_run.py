import time
from pathlib import Path

import pytest

from helpers.tuning_world import candidate, run, spec, store
from vlmsel_auto.cache import Store
from vlmsel_auto.errors import TrialDiverged
from vlmsel_auto.records import Candidate
from vlmsel_auto.tuning.checkpoints import has_weights, load_trial

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
    assert "the time budget ended after" in result.reason
    assert result.validation is not None
    over = run(tmp_path, candidate, store, spec(), deadline=time.monotonic() - 1)
    assert over.state == "pruned"
    assert over.curve == ()


def test_divergence(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    with pytest.raises(TrialDiverged, match="lower the learning rate"):
        run(tmp_path, candidate, store, spec(learning_rate=1e30, epochs=2))
