"""A trial on its way to a worker, and its files on their way back."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from helpers.study_world import NAMES, candidates, digits_folder, task
from vlmsel_auto.cache import Store
from vlmsel_auto.engines.engine import Held
from vlmsel_auto.events import TrialEpoch
from vlmsel_auto.models import zoo
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.records import Candidate, Task, TrialOrigin, TrialState
from vlmsel_auto.study.luggage import Home, Luggage, files_in, mark, taken, unpack
from vlmsel_auto.study.runner import TrialRunner
from vlmsel_auto.study.trial_job import TrialJob
from vlmsel_auto.tasks.pixels import pack
from vlmsel_auto.tuning import module as epochs
from vlmsel_auto.tuning.checkpoints import has_weights, trial_dir
from vlmsel_auto.tuning.methods import FINETUNE, PROBE
from vlmsel_auto.tuning.paused import has_paused

__all__ = ["candidates", "digits_folder", "task"]  # fixtures


@dataclass
class Line:
    """A channel whose coordinator asks to stop after so many epochs, or whose process dies in the last of them."""

    most: int = 99
    kills: bool = False
    told: list = field(default_factory=list)

    def tell(self, item: object) -> None:
        self.told.append(item)
        if self.kills and self.stopping:
            raise KeyboardInterrupt

    @property
    def stopping(self) -> bool:
        return len(self.told) >= self.most


@pytest.fixture
def runner(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> TrialRunner:
    return TrialRunner(
        task=task, table={each.id: each for each in candidates},
        methods={each.name: each for each in (PROBE, FINETUNE)},
        load=zoo.load, store=Store(tmp_path / "work" / "targets"), workdir=tmp_path / "work",
        device=torch.device("cpu"), train_shots=None, images_per_trial=150, seed=0,
    )  # fmt: skip


def job(runner: TrialRunner, method: str = "finetune", luggage: Luggage | None = None, **other) -> TrialJob:
    home = Home(runner=Held(runner), mark="abc", luggage=luggage)
    fields = {"home": home, "spec": runner.spec(method, NAMES[1], DEFAULT), "number": 3,
              "origin": TrialOrigin.PLANNED, "deadline": None, "continues": None}  # fmt: skip
    return TrialJob(**{**fields, **other})


def test_a_trial_ends_when_it_is_asked_to_and_tells_its_epochs(runner: TrialRunner) -> None:
    line = Line(most=2)
    ran = job(runner).run(line)
    assert ran.attempt.result.state is TrialState.PRUNED
    assert [each.epoch for each in line.told if isinstance(each, TrialEpoch)] == [1, 2]
    assert not has_paused(runner.workdir, 3)
    assert ran.files == {}


def test_a_deadline_is_a_time_of_day(runner: TrialRunner) -> None:
    result = job(runner, deadline=time.time() - 1).run(Line()).attempt.result
    assert result.out_of_time


def test_a_worker_without_the_work_directory_continues_from_the_luggage_and_gives_the_files_back(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    candidate = runner.table[NAMES[1]]
    pixels = Held(pack(runner.task, [candidate.view]))
    models = {candidate.id: Held(files_in(candidate.path))}
    monkeypatch.setattr(epochs, "_SAVE_EVERY", 0.0)
    killed = Line(most=2, kills=True)
    with pytest.raises(KeyboardInterrupt):
        job(runner).run(killed)
    files = taken(runner.workdir, 3)
    assert sorted(files) == ["paused.safetensors"]
    mark(runner.workdir, "another search")
    along = Luggage(pixels=pixels, models=models, trials={3: files})
    second = job(runner, number=4, continues=3, luggage=along).run(Line())
    assert second.attempt.result.state is TrialState.COMPLETE
    assert second.attempt.result.curve[:1] == tuple(each.validation for each in killed.told[:1])
    assert not trial_dir(runner.workdir, 4).exists()
    unpack(second.files, trial_dir(runner.workdir, 4))
    assert has_weights(runner.workdir, 4)
