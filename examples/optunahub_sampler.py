"""The prior as a package of OptunaHub, loaded from a folder: python examples/optunahub_sampler.py FOLDER TRIALS.

Published, it would be `optunahub.load_module("samplers/candidate_prior")`. FOLDER holds one folder of images a class.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import optuna
import optunahub
from PIL import Image
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

REGISTRY = Path(__file__).parents[1] / "integrations/optunahub/package"
MODELS = {
    "logistic": LogisticRegression(max_iter=2000),
    "neighbours": KNeighborsClassifier(),
    "trees": ExtraTreesClassifier(random_state=0),
}
ELSEWHERE = {"logistic": 0.92, "neighbours": 0.96, "trees": 0.97}  # what they reached on another task: scores to try


def main(folder: str, n_trials: int) -> None:
    """Choose among three classifiers of plain pixels by what they did on another task."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
    labels = [path.parent.name for path in paths]

    module = optunahub.load_local_module("samplers/candidate_prior", registry_root=str(REGISTRY))
    prior = module.CandidatePrior.of_scores(ELSEWHERE, sd=0.5)
    study = optuna.create_study(direction="maximize", sampler=module.PriorSampler(prior, seed=0))

    def objective(trial: optuna.Trial) -> float:
        name = trial.suggest_categorical("candidate", prior.names)
        size = trial.suggest_int("size", 4, 16)
        pixels = [np.asarray(Image.open(path).convert("RGB").resize((size, size))).ravel() / 255 for path in paths]
        return float(cross_val_score(MODELS[name], np.stack(pixels), labels, cv=3).mean())

    study.optimize(objective, n_trials=n_trials)
    print(f"best: {study.best_params['candidate']}, validation {study.best_value:.3f}, of {len(study.trials)} trials")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
