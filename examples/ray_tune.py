"""The ranking in a run of Ray Tune on this machine: python examples/ray_tune.py FOLDER TRIALS.

A trial is a linear classifier on a candidate's embeddings, trained for a few epochs; Ray runs two at a time.
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import ray
from ray import tune
from sklearn.linear_model import SGDClassifier

import vlmsel_auto
from vlmsel_auto import candidates
from vlmsel_auto.cache import Store
from vlmsel_auto.integrations.candidate_search import CandidatePrior, CandidateSearch
from vlmsel_auto.integrations.ray_tune import AskTellSearcher, SearchStopper
from vlmsel_auto.models import zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.tasks.task import TaskOptions, load_task

NAMES = ["RN-Mi-64.glyph-s", "EffNet-Mi-64.all-m", "ViT-Mi-8-64.all-l"]
EPOCHS = 6
Config = dict[str, str | float]
Split = dict[str, np.ndarray]


def train(config: Config, images: dict[str, np.ndarray], labels: np.ndarray, split: Split) -> None:
    """One trial, in a process of its own."""
    embedded = images[str(config["candidate"])]
    classifier = SGDClassifier(loss="log_loss", alpha=config["alpha"], random_state=0)
    for _ in range(EPOCHS):
        classifier.partial_fit(embedded[split["train"]], labels[split["train"]], classes=np.unique(labels))
        tune.report({"accuracy": float(classifier.score(embedded[split["val"]], labels[split["val"]]))})


def main(folder: str, n_trials: int) -> None:
    """Rank, embed, then let Ray run what the search asks for."""
    chosen = candidates.resolve(NAMES)
    ranking = vlmsel_auto.rank(folder, candidates=NAMES)
    search = CandidateSearch(CandidatePrior.of(ranking, candidates=chosen))
    with tempfile.TemporaryDirectory() as scratch:
        task = load_task(
            Path(folder), TaskOptions(needs_val=True), views=list({one.view for one in chosen}), workdir=Path(scratch)
        )
        everything = np.arange(len(task.paths))
        store = Store(Path(scratch))
        images = {
            one.id: embed(one, task, everything, load=partial(zoo.load, one), store=store).images for one in chosen
        }
        split = {"train": task.train, "val": task.val}
        searcher = AskTellSearcher(search, seed=0)
        tuner = tune.Tuner(
            tune.with_parameters(train, images=images, labels=task.labels, split=split),
            param_space={"alpha": tune.loguniform(1e-5, 1e-1)},  # the search leaves it open
            tune_config=tune.TuneConfig(
                search_alg=searcher, metric="accuracy", mode="max", num_samples=n_trials, max_concurrent_trials=2
            ),
            run_config=tune.RunConfig(storage_path=scratch, stop=SearchStopper(searcher), verbose=0),
        )
        found = tuner.fit()
    best = found.get_dataframe().sort_values("accuracy", na_position="first").iloc[-1]
    print(f"best: {best['config/candidate']}, validation {best['accuracy']:.3f}, of {len(found)} trials")


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent to anyone
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    main(sys.argv[1], int(sys.argv[2]))
