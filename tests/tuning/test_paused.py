"""Pausing: a trial that stops at a rung and goes on later ends as if it had never stopped."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tuning_world import candidate, run, spec, store
from vlmsel_auto.cache import Store
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.records import Candidate
from vlmsel_auto.tuning import module as epochs
from vlmsel_auto.tuning.checkpoints import (
    Paused,
    Progress,
    drop_paused,
    has_paused,
    has_weights,
    load_paused,
    load_trial,
    save_paused,
)

__all__ = ["candidate", "store"]  # fixtures

PROGRESS = Progress(
    curve=(0.5, 0.6), kept=2, metric=0.6, soft=0.55, loss=0.9, start=0.4, steps=10, batch=8, seconds=3.5
)


@pytest.mark.parametrize("rate", [1e-3, 0.3], ids=["learns", "start stays best"])
def test_a_continued_trial_is_the_trial_that_never_paused(
    rate: float, tmp_path: Path, candidate: Candidate, store: Store
) -> None:
    plan = spec(epochs=4, learning_rate=rate)
    whole = run(tmp_path, candidate, store, plan, number=0)
    paused = run(tmp_path, candidate, store, plan, number=1, report=lambda epoch, *_: epoch == 2)
    assert (paused.state, paused.epochs_run, paused.fidelity, paused.continues) == ("pruned", 2, 0.5, None)
    assert has_paused(tmp_path, 1)
    assert not has_weights(tmp_path, 1)
    rest = run(tmp_path, candidate, store, plan, number=2, continues=1)
    same = ("spec", "state", "validation", "soft_validation", "test", "curve", "epochs_run", "start", "kept_epoch")
    assert rest.fidelity == whole.fidelity
    assert {name: getattr(rest, name) for name in same} == {name: getattr(whole, name) for name in same}
    assert rest.continues == 1
    assert rest.cost is not None
    assert paused.cost is not None
    assert rest.seconds < rest.cost < rest.seconds + paused.cost + 0.1
    first, second = load_trial(tmp_path, 0), load_trial(tmp_path, 2)
    assert np.array_equal(first.weight, second.weight)
    assert (first.visual is None) == (second.visual is None)
    for name, value in (first.visual or {}).items():
        assert torch.equal(value, (second.visual or {})[name])


def test_pausing_twice(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    plan = spec(epochs=4)
    whole = run(tmp_path, candidate, store, plan, number=0)
    run(tmp_path, candidate, store, plan, number=1, report=lambda epoch, *_: epoch == 1)
    run(tmp_path, candidate, store, plan, number=2, report=lambda epoch, *_: epoch == 3, continues=1)
    assert load_paused(tmp_path, 2).progress.curve == whole.curve[:3]
    rest = run(tmp_path, candidate, store, plan, number=3, continues=2)
    assert (rest.curve, rest.test) == (whole.curve, whole.test)


def test_long_trials_leave_their_state_for_a_kill(
    tmp_path: Path, candidate: Candidate, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "_SAVE_EVERY", 0.0)

    def killed(epoch: int, validation: float, loss: float) -> bool:
        del validation, loss
        if epoch == 3:
            raise KeyboardInterrupt
        return False

    whole = run(tmp_path, candidate, store, spec(epochs=4), number=0)
    assert not has_paused(tmp_path, 0)  # a finished trial needs none
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, candidate, store, spec(epochs=4), number=1, report=killed)
    assert load_paused(tmp_path, 1).progress.curve == whole.curve[:2]
    rest = run(tmp_path, candidate, store, spec(epochs=4), number=2, continues=1)
    assert rest.curve == whole.curve


def test_round_trip_and_damage(tmp_path: Path) -> None:
    state = Paused(
        progress=PROGRESS,
        module={"visual.a": torch.ones(2, 3), "head.bias": torch.zeros(2)},
        best={},
        moments={"0.step": torch.tensor(7.0), "0.exp_avg": torch.full((2, 3), 0.1)},
        generators={"shuffle": torch.Generator().manual_seed(3).get_state()},
    )
    path = save_paused(tmp_path, 4, state)
    found = load_paused(tmp_path, 4)
    assert found.progress == PROGRESS
    assert dict(found.best) == {}
    for group in ("module", "moments", "generators"):
        kept, read = getattr(state, group), getattr(found, group)
        assert kept.keys() == read.keys()
        assert all(torch.equal(kept[name], read[name]) for name in kept)
    assert dataclasses.replace(found.progress, seconds=0.0) != PROGRESS
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(TrialUnavailable, match=r"Trial 4 cannot be continued.*begun anew"):
        load_paused(tmp_path, 4)
    drop_paused(tmp_path, 4)
    assert not has_paused(tmp_path, 4)
    with pytest.raises(TrialUnavailable, match="Trial 4 cannot be continued"):
        load_paused(tmp_path, 4)
