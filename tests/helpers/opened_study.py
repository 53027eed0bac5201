"""A study by itself, without a search."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from helpers.tuning_world import digits, spec
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.planning.method import Part
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.records import TrialOrigin, TrialResult, TrialState
from vlmsel_auto.study.journal import open_study
from vlmsel_auto.study.optuna_study import OptunaStudy
from vlmsel_auto.tuning.checkpoints import save_result
from vlmsel_auto.tuning.methods import FINETUNE
from vlmsel_auto.tuning.paused import Paused, Progress, save_paused
from vlmsel_auto.tuning.runner import TrialRunner

NAMES = ("a", "b", "c")


@contextmanager
def opened(workdir: Path, **changes: object) -> Iterator[OptunaStudy]:
    """The study of three candidates; results of trials that are ``done`` are on file."""
    for number in changes.pop("done", ()):
        save_result(workdir, result(number))
    told = {name: changes.pop(name) for name in ("storage", "sink") if name in changes}
    candidates = [replace(mini_zoo()[0], id=name) for name in changes.pop("names", NAMES)]
    own = {"task": digits(), "candidates": candidates, "load": zoo.load, "store": Store(workdir / "targets")}
    with open_study(TrialRunner(**{**own, "workdir": workdir, **changes}), **told) as study:
        yield study


def planned(**changes: object) -> NextTrial:
    point = {"learning_rate": 0.1, "weight_decay": 0.2, "augmentation": 0.3, "epochs": 0.4}
    made = NextTrial(candidate="b", method=FINETUNE.name, point=point, origin=TrialOrigin.PLANNED, why="told")
    return replace(made, **changes)


def result(number: int, **changes: object) -> TrialResult:
    made = TrialResult(number=number, spec=spec(), state=TrialState.COMPLETE, origin=TrialOrigin.PLANNED,
                       validation=0.8, test=0.7, curve=(0.8,), epochs_run=1, seconds=1.0)  # fmt: skip
    return replace(made, **changes)


def leave_state(path: Path, number: int) -> None:
    """What training keeps of a trial for who goes on with it: one epoch."""
    progress = Progress(
        curve=(0.5,), metric=0.5, soft=0.5, loss=0.1, start=0.1, steps=1, batch=8, part=Part.TOWER, seconds=1.0
    )
    save_paused(path, number, Paused(progress=progress, module={"a": torch.ones(2)}, moments={}, generators={}))
