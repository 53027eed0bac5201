"""One trial in two processes, on the processor, by Lightning's ddp."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tuning_world import candidate, run, spec, store
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate
from vlmsel_auto.tuning.checkpoints import load_trial
from vlmsel_auto.tuning.devices import Devices
from vlmsel_auto.tuning.paused import has_paused

__all__ = ["candidate", "store"]  # fixtures

TWO = Devices(count=2)


def test_two_processes_learn_together_what_one_learns_alone_and_pause_together(
    tmp_path: Path, candidate: Candidate, store: Store
) -> None:
    one = spec(epochs=2, augmentation=0.0)
    alone = run(tmp_path / "alone", candidate, store, one)
    told: list[int] = []

    def pausing(epoch: int, *_: float) -> bool:
        told.append(epoch)
        return epoch == 1

    first = run(tmp_path / "two", candidate, store, one, devices=TWO, report=pausing)
    assert (first.state, first.epochs_run, told) == ("pruned", 1, [1])
    assert has_paused(tmp_path / "two", 5)
    assert not torch.distributed.is_initialized()
    both = run(tmp_path / "two", candidate, store, one, devices=TWO, number=6, continues=5)
    assert both.state == "complete"
    assert both.curve == pytest.approx(alone.curve, abs=0.051)  # one of 20 images
    mine, other = load_trial(tmp_path / "two", both), load_trial(tmp_path / "alone", alone)
    assert np.allclose(mine.weight, other.weight, atol=1e-4)
    assert mine.visual is not None
    assert other.visual is not None
    assert all(torch.allclose(value, other.visual[name], atol=1e-4) for name, value in mine.visual.items())


@dataclass(frozen=True)
class LoadsHereAlone:
    """Loads in one process and in no other."""

    pid: int

    def __call__(self, candidate: Candidate) -> LoadedModel:
        if os.getpid() != self.pid:
            raise RuntimeError("there is no room")
        return zoo.load(candidate)


def test_a_process_that_fails_ends_the_trial_and_says_why(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    with pytest.raises(RuntimeError, match="another process of the trial failed: RuntimeError: there is no room"):
        run(tmp_path, candidate, store, spec(), devices=TWO, load=LoadsHereAlone(os.getpid()))
