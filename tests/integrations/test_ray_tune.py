"""ray_tune.py: the searcher by itself, and a real run of Ray Tune on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.optuna_world import NAMES, prior
from vlmsel_auto.integrations.candidate_search import CandidateSearch
from vlmsel_auto.integrations.past_search import PastRow, PastSearch, PastTable

pytest.importorskip("ray")
from ray import cloudpickle, tune
from ray.tune.search import Searcher

from vlmsel_auto.integrations.ray_tune import AskTellSearcher, SearchStopper


def searcher(**changes) -> AskTellSearcher:
    made = AskTellSearcher(CandidateSearch(prior(settings={"rate": 1e-3})), metric="accuracy", mode="max", seed=0)
    space = {"decay": tune.loguniform(1e-4, 1e-1), "rate": tune.uniform(0, 1), "classes": 10, **changes}
    assert made.set_search_properties("accuracy", "max", space)
    return made


def test_the_search_chooses_and_the_domains_give_the_rest():
    made = searcher()
    config = made.suggest("t0")
    assert set(config) == {"candidate", "rate", "decay"}  # Tune adds the constants itself
    assert (config["candidate"], config["rate"]) == ("model-c", 1e-3)
    assert 1e-4 <= config["decay"] <= 1e-1
    assert searcher().suggest("t0") == config  # by the seed


def test_ends_are_told_and_a_pruned_trial_has_no_value():
    made = searcher()
    stop = SearchStopper(made)
    for number, value in enumerate((0.9, 0.2)):
        made.suggest(f"t{number}")
        ended = [stop(f"t{number}", {"accuracy": value, "training_iteration": step}) for step in (1, 2)]
        made.on_trial_complete(f"t{number}", {"accuracy": value})
        assert ended == [value < 0.5] * 2
    made.suggest("t2")
    made.on_trial_complete("t2", error=True)
    made.on_trial_complete("of another run", {"accuracy": 1.0})
    assert made.pruned == {"t1"}
    assert not stop.stop_all()
    assert made.search.due(["model-c"]) is None


def test_numbers_of_numpy_count():
    plain, numpys = searcher(), searcher()
    for made, kind in ((plain, float), (numpys, np.float32)):
        for number, value in enumerate((0.75, 0.25)):
            made.suggest(f"t{number}")
            result = {"accuracy": kind(value), "training_iteration": 1}
            assert made.should_prune(f"t{number}", result) is (number == 1)
            made.on_trial_complete(f"t{number}", result)
    assert [plain.suggest(f"n{number}") for number in range(4)] == [numpys.suggest(f"n{number}") for number in range(4)]


def test_the_last_result_is_told_twice_and_compared_once():
    made = AskTellSearcher(CandidateSearch(prior(sd=0.1), handicap=0.05), metric="accuracy", mode="max")
    for name in set(NAMES) - {"model-f"}:
        for _ in range(10):
            made.search.begin({"candidate": name})
    made.search.tell({"candidate": "model-f"}, 0.4)  # what follows is no first trial, so it has its handicap
    assert made.suggest("t0") == {"candidate": "model-f"}
    stop = SearchStopper(made)
    results = [{"accuracy": 0.5, "training_iteration": step} for step in (1, 2, 2)]
    assert [stop("t0", each) for each in results] == [False] * 3


def test_a_restored_searcher_goes_on_as_the_saved_one(tmp_path: Path):
    first = searcher()
    for number in range(4):
        first.suggest(f"t{number}")
    for number, value in enumerate((0.5, 0.6, 0.4)):
        first.should_prune(f"t{number}", {"accuracy": value, "training_iteration": 1})
        first.on_trial_complete(f"t{number}", {"accuracy": value})
    first.save(str(tmp_path / "state"))
    again = AskTellSearcher(CandidateSearch(prior()))  # as Tune made it: metric and domains came later
    again.restore(str(tmp_path / "state"))
    for each in (first, again):
        assert each.should_prune("t3", {"accuracy": 0.45, "training_iteration": 1})  # compared with those before
        each.on_trial_complete("t3", {"accuracy": 0.7})
    chosen = [[each.suggest(f"n{number}") for number in range(4)] for each in (first, again)]
    assert chosen[0] == chosen[1]  # candidates and draws
    assert all(isinstance(each["decay"], float) for each in chosen[1])


def test_a_stopper_that_is_restored_by_itself_asks_the_searcher_that_runs(tmp_path: Path):
    first = searcher()
    tuner = cloudpickle.dumps((first, SearchStopper(first)))  # before the run
    first.suggest("t0")
    first.should_prune("t0", {"accuracy": 0.9, "training_iteration": 1})
    first.save(str(tmp_path / "state"))
    run = cloudpickle.dumps(SearchStopper(first))  # with it
    again, _ = cloudpickle.loads(tuner)
    again.restore(str(tmp_path / "state"))
    again.suggest("t1")
    stop = cloudpickle.loads(run)
    assert stop("t1", {"accuracy": 0.2, "training_iteration": 1})
    assert again.pruned == {"t1"}


def test_a_table_of_past_trials_ends_a_run():
    rows = [PastRow(task="t", params={"model": model}, value=value) for model, value in (("a", 0.5), ("b", 0.6))]
    made = AskTellSearcher(PastSearch(PastTable.of(rows, candidate="model")), metric="accuracy", mode="max")
    assert [made.suggest("0"), made.suggest("1"), made.suggest("2")] == [
        {"model": "b"},
        {"model": "a"},
        Searcher.FINISHED,
    ]


def test_refusals():
    with pytest.raises(ValueError, match="the search must have Tune's mode, 'min', but got 'max'"):
        AskTellSearcher(CandidateSearch(prior()), metric="loss", mode="min")
    with pytest.raises(ValueError, match=r"no grids or groups, but got \['rate'\]"):
        searcher(rate={"grid_search": [1, 2]})


RUN = """
import json, logging, os, sys
import ray
import torch
from lightning.pytorch import LightningModule, Trainer
from ray import tune
from torch.utils.data import DataLoader
from vlmsel_auto.integrations.candidate_search import CandidatePrior, CandidateSearch
from vlmsel_auto.integrations.lightning_report import ReportValidation
from vlmsel_auto.integrations.ray_tune import AskTellSearcher, SearchStopper

TRUTH = {"weak": 0.3, "good": 0.7, "best": 0.9}

def train(config):
    class Curve(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
        def training_step(self, batch, batch_idx):
            return ((self.weight - batch) ** 2).mean()
        def validation_step(self, batch, batch_idx):
            self.log("accuracy", TRUTH[config["candidate"]] + 0.01 * self.current_epoch)
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=config["rate"])
    data = DataLoader(torch.ones(2, 1))
    Trainer(max_epochs=3, callbacks=[ReportValidation.to_ray(monitor="accuracy")], logger=False, accelerator="cpu",
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False).fit(Curve(), data, data)

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
search = CandidateSearch(CandidatePrior.of_scores({"weak": 0.1, "good": 0.3, "best": 0.2}, sd=0.3))
searcher = AskTellSearcher(search, seed=0)
tuner = tune.Tuner(
    train,
    param_space={"rate": tune.loguniform(1e-3, 1e-1)},
    tune_config=tune.TuneConfig(search_alg=searcher, metric="accuracy", mode="max", num_samples=3,
                                max_concurrent_trials=1, reuse_actors=True),
    run_config=tune.RunConfig(storage_path=sys.argv[1], stop=SearchStopper(searcher), verbose=0),
)
found = tuner.fit()
print(json.dumps([[each.config["candidate"], each.metrics["training_iteration"], each.metrics["accuracy"]]
                  for each in found]))
"""


@pytest.mark.slow
def test_a_real_run_on_this_machine(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    trials = json.loads(done.stdout.splitlines()[-1])
    assert trials[0][0] == "good"  # the prior's first
    assert {name: epochs for name, epochs, _ in trials} == {
        "good": 3,
        "best": 3,
        "weak": 1,
    }  # ended at its first report
    assert {name: value for name, _, value in trials} == pytest.approx({"good": 0.72, "best": 0.92, "weak": 0.3})
