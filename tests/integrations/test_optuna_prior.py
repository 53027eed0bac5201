import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, BruteForceSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import FrozenTrial

from helpers.optuna_world import NAMES, TRUTH, objective, prior
from vlmsel_auto.integrations.optuna_prior import PriorPruner, PriorSampler

BEST = "model-c"


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class TestContract(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: PriorSampler(prior(), RandomSampler(seed=0))


class TestMultiObjectiveContract(MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: PriorSampler(prior(), RandomSampler(seed=0))


class TestRelativeContract(RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: PriorSampler(prior(), TPESampler(multivariate=True, n_startup_trials=0, seed=0))


def test_two_lines_give_a_head_start() -> None:
    belief = prior(settings={"rate": 1e-3})
    study = optuna.create_study(
        direction="maximize", sampler=PriorSampler(belief, TPESampler(seed=0)), pruner=PriorPruner(belief)
    )
    study.optimize(objective, n_trials=10)
    assert study.trials[0].params == {"candidate": BEST, "rate": 1e-3}
    assert study.best_trial.params["candidate"] == BEST


@pytest.mark.parametrize("first", ["rate", "candidate"])
def test_a_study_without_a_queue_begins_with_the_settings_too(first: str) -> None:
    def conditional(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True) if first == "rate" else None
        value = objective(trial)
        if trial.params["candidate"] != BEST:  # a later trial is the first that has it
            trial.suggest_float("decay", 0.0, 1.0)
        trial.suggest_int("epochs", 1, 9, step=2)  # the setting is none of its values
        assert rate in (None, trial.params["rate"])
        return value

    flat = prior(sd=5.0, settings={"rate": 1e-3, "decay": 0.125, "epochs": 4})
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(flat, RandomSampler(seed=0)))
    study.optimize(conditional, n_trials=2)
    assert [each.params["rate"] for each in study.trials] == [1e-3, 1e-3]
    assert study.trials[0].params["candidate"] == BEST
    assert study.trials[1].params["decay"] == 0.125


def test_every_candidate_is_the_priors_choice_once_at_most() -> None:
    flat = prior(np.linspace(0.5, 0.6, len(NAMES)), sd=5.0, settings={"rate": 1e-3})  # it knows that it knows little
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(flat, RandomSampler(seed=0)))
    study.optimize(objective, n_trials=40)
    mine = [each.params["candidate"] for each in study.trials if each.params["rate"] == 1e-3]
    assert len(mine) == len(set(mine)) >= 4
    first = next(each.number for each in study.trials if each.params["candidate"] == BEST)
    assert first < len(NAMES) + 3


def test_a_failed_first_trial_may_come_again() -> None:
    def fails_once(trial: optuna.Trial) -> float:
        value = objective(trial)
        return float("nan") if trial.number == 0 else value

    belief = prior(settings={"rate": 1e-3})
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(belief, RandomSampler(seed=0)))
    study.optimize(fails_once, n_trials=12)
    assert study.trials[0].params["candidate"] == BEST
    assert study.trials[0].state == optuna.trial.TrialState.FAIL
    assert {"candidate": BEST, "rate": 1e-3} in [each.params for each in study.trials[1:]]


def test_a_wrong_prior_is_overcome() -> None:
    def trials_to_the_best(scores: np.ndarray | None, seed: int) -> int:
        plain = TPESampler(seed=seed)
        sampler = plain if scores is None else PriorSampler(prior(scores, settings={"rate": 1e-3}), plain)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(objective, n_trials=30)
        return next((each.number for each in study.trials if each.params["candidate"] == BEST), 30)

    wrong, none = (np.mean([trials_to_the_best(scores, seed) for seed in range(8)]) for scores in (-TRUTH, None))
    right = np.mean([trials_to_the_best(TRUTH, seed) for seed in range(8)])
    assert right == 0
    assert wrong <= none + 4  # at most the eight candidates, each once, half of the time


def test_minimisation_and_other_units() -> None:
    belief = prior(unit=100.0)
    study = optuna.create_study(direction="minimize", sampler=PriorSampler(belief, RandomSampler(seed=0)))
    study.optimize(lambda trial: -100 * objective(trial), n_trials=12)
    assert study.best_trial.params["candidate"] == BEST


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # of BruteForceSampler
@pytest.mark.parametrize("first", ["candidate", "decay"])
def test_every_combination_is_tried_once_where_the_wrapped_sampler_does_so(first: str) -> None:
    def few(trial: optuna.Trial) -> float:
        if first == "decay":
            trial.suggest_categorical("decay", [0.0, 0.1])
        name = trial.suggest_categorical("candidate", NAMES)
        return float(TRUTH[NAMES.index(name)]) - trial.suggest_categorical("decay", [0.0, 0.1])

    study = optuna.create_study(direction="maximize", sampler=PriorSampler(prior(), BruteForceSampler(seed=0)))
    study.optimize(few, n_trials=100)
    assert sorted(tuple(sorted(each.params.items())) for each in study.trials) == sorted(
        (("candidate", name), ("decay", decay)) for name in NAMES for decay in (0.0, 0.1)
    )


def test_two_objectives_and_constraints() -> None:
    def both(trial: optuna.Trial) -> tuple[float, float]:
        value = objective(trial)
        trial.set_constraint("memory", 1.0 if trial.params["candidate"] == BEST else -1.0)
        return value, float(NAMES.index(trial.params["candidate"]))

    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=PriorSampler(prior(), RandomSampler(seed=0))
    )
    study.optimize(both, n_trials=12)
    chosen = [each.params["candidate"] for each in study.trials]
    assert chosen[0] == BEST
    assert chosen.count(BEST) < 6  # infeasible: tried, but not taken for good


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_storages_and_resume(kind: str, tmp_path: Path) -> None:
    def storage() -> object:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / 'study.db'}"
        return JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))

    belief = prior()
    study = optuna.create_study(storage=storage(), study_name="s", direction="maximize", sampler=PriorSampler(belief))
    study.optimize(objective, n_trials=2)
    again = optuna.load_study(study_name="s", storage=storage(), sampler=PriorSampler(belief))
    again.optimize(objective, n_trials=2)
    assert len(again.trials) == 4
    assert again.trials[0].params["candidate"] == BEST


@pytest.mark.parametrize("wrapped", [False, True])
def test_hyperband_and_the_prior_go_together(wrapped: bool) -> None:  # noqa: FBT001 - a parameter of the test
    def reports(trial: optuna.Trial) -> float:
        value = objective(trial)
        trial.report(value, step=1)
        trial.should_prune()
        return value

    belief = prior(np.linspace(0.5, 0.6, len(NAMES)), sd=5.0, settings={"rate": 1e-3})
    hyperband = optuna.pruners.HyperbandPruner(max_resource=81)
    study = optuna.create_study(
        study_name="s",
        direction="maximize",
        sampler=PriorSampler(belief, RandomSampler(seed=0)),
        pruner=PriorPruner(belief, hyperband) if wrapped else hyperband,
    )
    study.optimize(reports, n_trials=16)
    mine = [each.params["candidate"] for each in study.trials if each.params["rate"] == 1e-3]
    assert mine[0] == NAMES[7]
    assert (len(mine) == len(set(mine))) is wrapped  # a bracket knows nothing of the others


WORKER = """
import sys
from pathlib import Path
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
sys.path.insert(0, sys.argv[1])
from helpers.optuna_world import objective, prior
from vlmsel_auto.integrations.optuna_prior import PriorPruner, PriorSampler
optuna.logging.set_verbosity(optuna.logging.ERROR)
kind, place, trials = sys.argv[2], sys.argv[3], int(sys.argv[4])
storage = f"sqlite:///{place}" if kind == "sqlite" else JournalStorage(JournalFileBackend(place))
study = optuna.load_study(study_name="s", storage=storage, sampler=PriorSampler(prior()), pruner=PriorPruner(prior()))
study.optimize(objective, n_trials=trials)
"""


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_two_processes(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "study"
    storage = f"sqlite:///{place}" if kind == "sqlite" else JournalStorage(JournalFileBackend(str(place)))
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        WORKER,
        str(Path(__file__).parents[1]),
        kind,
        str(place),
        "4",
    ]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    found = study.get_trials()
    assert [each.number for each in found] == list(range(8))
    assert all(each.state == optuna.trial.TrialState.COMPLETE for each in found)
    assert found[0].params["candidate"] == BEST


def test_two_threads() -> None:
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(prior(), RandomSampler(seed=0)))
    study.optimize(objective, n_trials=12, n_jobs=2)
    assert len(study.trials) == 12
    assert all(each.state == optuna.trial.TrialState.COMPLETE for each in study.trials)


class Recorder(optuna.pruners.BasePruner):
    def __init__(self) -> None:
        self.shown: list[float] = []

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        self.shown.append(trial.intermediate_values[0])
        return trial.intermediate_values[0] < 0.5


def test_the_pruner_asks_more_of_weak_candidates() -> None:
    recorder = Recorder()
    belief = prior(sd=0.1)
    study = optuna.create_study(direction="maximize", pruner=PriorPruner(belief, recorder, handicap=0.05))
    pruned = []
    for index in (2, 5):
        study.enqueue_trial({"candidate": NAMES[index]})
        trial = study.ask()
        trial.suggest_categorical("candidate", NAMES)
        trial.report(0.52, step=0)
        pruned.append(trial.should_prune())
        study.tell(trial, 0.5)
    assert recorder.shown == pytest.approx([0.52, 0.47])
    assert pruned == [False, True]
    assert study.trials[1].intermediate_values == {0: 0.52}  # the study keeps what was reported


def test_overhead_is_small() -> None:
    belief = prior()
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(belief, RandomSampler(seed=0)))
    study.optimize(objective, n_trials=5)
    begun = time.process_time()
    study.optimize(objective, n_trials=20)
    assert (time.process_time() - begun) / 20 < 0.1


def test_refusals() -> None:
    with pytest.raises(ValueError, match="handicap must not be negative"):
        PriorPruner(prior(), handicap=-1.0)
    with pytest.raises(ValueError, match="unit must be positive"):
        prior(unit=0.0)
    study = optuna.create_study(sampler=PriorSampler(prior()))
    with pytest.raises(ValueError, match="must be categorical"):
        study.ask().suggest_float("candidate", 0, 1)
    with pytest.raises(ValueError, match="No choice of 'candidate'"):
        optuna.create_study(sampler=PriorSampler(prior())).ask().suggest_categorical("candidate", ["x", "y"])
