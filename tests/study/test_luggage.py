"""What goes along with a job, and how a worker knows the work directory."""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tuning_world import candidate, digits
from vlmsel_auto.cache import Store
from vlmsel_auto.engines.engine import Held
from vlmsel_auto.models import zoo
from vlmsel_auto.records import Candidate
from vlmsel_auto.study.luggage import Home, Luggage, files_in, mark, taken, unmark, unpack
from vlmsel_auto.study.runner import TrialRunner
from vlmsel_auto.tasks.pixels import pack
from vlmsel_auto.tuning.checkpoints import trial_dir

__all__ = ["candidate"]  # fixture


def test_who_sees_the_mark_stays_and_who_does_not_unpacks_what_came_along(
    tmp_path: Path, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    runner = TrialRunner(
        task=digits(), table={candidate.id: candidate}, methods={}, load=zoo.load, store=Store(tmp_path / "targets"),
        workdir=tmp_path / "work", device=torch.device("cpu"), train_shots=None, images_per_trial=150, seed=0,
    )  # fmt: skip
    luggage = Luggage(
        pixels=Held(pack(runner.task, [candidate.view])), models={candidate.id: Held(files_in(candidate.path))},
        trials={7: {"part/a.bin": b"abc"}},
    )  # fmt: skip
    home = Home(runner=Held(runner), mark="abc", luggage=luggage)
    assert Home(runner=Held(runner), mark="abc").open(candidate.id) == (runner, False)
    mark(runner.workdir, "abc")
    assert home.open(candidate.id) == (runner, False)
    mark(runner.workdir, "another search")
    there, away = home.open(candidate.id)
    assert away
    assert (there.workdir, there.store.root) == (tmp_path / "node" / "vlmsel-held-abc", there.workdir / "targets")
    rows = np.array([3, 1])
    assert np.array_equal(there.task.pixels.read(candidate.view, rows), runner.task.pixels.read(candidate.view, rows))
    moved = there.table[candidate.id].path
    assert moved is not None
    assert moved != candidate.path
    assert files_in(moved) == files_in(candidate.path)
    assert taken(there.workdir, 7) == {"part/a.bin": b"abc"}
    assert not trial_dir(there.workdir, 7).exists()
    unmark(runner.workdir)
    unmark(runner.workdir)  # it is gone already
    assert list(runner.workdir.iterdir()) == []


def test_files_of_a_folder_come_out_as_they_went_in(tmp_path: Path) -> None:
    unpack({"a": b"1", "b/c": b""}, tmp_path / "there")
    assert files_in(tmp_path / "there") == {"a": b"1", "b/c": b""}
