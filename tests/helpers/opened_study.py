"""A study by itself, without a search."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from helpers.tuning_world import digits, spec
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.records import TrialOrigin, TrialResult, TrialState
from vlmsel_auto.study.opening import open_study
from vlmsel_auto.study.optuna_study import OptunaStudy
from vlmsel_auto.tuning.methods import FINETUNE, METHODS

NAMES = ("a", "b", "c")


@contextmanager
def opened(workdir: Path, **changes: object) -> Iterator[OptunaStudy]:
    arguments = {"task": digits(), "names": NAMES, "methods": METHODS, "workdir": workdir, "seed": 0}
    with open_study(**{**arguments, "done": (), **changes}) as study:
        yield study


def planned(**changes: object) -> NextTrial:
    point = {"learning_rate": 0.1, "weight_decay": 0.2, "augmentation": 0.3, "epochs": 0.4}
    made = NextTrial(candidate="b", method=FINETUNE.name, point=point, origin=TrialOrigin.PLANNED, why="told")
    return replace(made, **changes)


def result(number: int, **changes: object) -> TrialResult:
    made = TrialResult(number=number, spec=spec(), state=TrialState.COMPLETE, origin=TrialOrigin.PLANNED,
                       validation=0.8, test=0.7, curve=(0.8,), epochs_run=1, seconds=1.0)  # fmt: skip
    return replace(made, **changes)
