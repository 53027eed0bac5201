"""A study that a dashboard shows: a lucky tower, a head expected to be better, a paused and a running trial."""

from dataclasses import replace
from pathlib import Path

from helpers.opened_study import opened, result
from helpers.tuning_world import spec
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.records import TrialOrigin, TrialState
from vlmsel_auto.study.optuna_study import TrialForecast
from vlmsel_auto.tuning.methods import FINETUNE, PROBE

PREDICTION = TrialForecast(rank=2, p_best=0.25, forecast=0.71234, sd=0.1)
COST = 12.3


def begun(workdir: Path, *, storage: str | None = None) -> Path:
    """Four trials; the first has the highest validation, the second is expected to be the best. Gives ``workdir``."""
    point = {"learning_rate": 0.1, "weight_decay": 0.2, "augmentation": 0.3, "epochs": 0.4}
    tower = NextTrial(candidate="b", method=FINETUNE.name, point=point, origin=TrialOrigin.PLANNED, why="told", fold=3)
    head = replace(tower, candidate="a", method=PROBE.name, point={}, fold=0)
    workdir.mkdir(exist_ok=True)
    with opened(workdir, storage=storage) as study:
        for number, planned in enumerate((tower, head, tower, head)):
            study.queue(planned, prediction=PREDICTION)
            study.take()
            if planned is tower:
                study.report(number, rung=1, value=0.6)
        study.close(result(0, validation=0.95, cost=COST))
        study.close(result(1, validation=0.9, cost=COST, spec=replace(spec(), settings={}, epochs=0)))
        study.close(result(2, state=TrialState.PRUNED))
        study.expect({0: 0.85, 1: 0.88})
    return workdir
