"""A table of past trials as the start of a study: python examples/past_study.py FOLDER TRIALS.

The past is measured here, on data sets of scikit-learn; FOLDER holds one folder of images a class.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import optuna
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from vlmsel_auto.integrations.optuna_past import PastRow, PastSampler, PastTable

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
MODELS = {"logistic": LogisticRegression, "machine": SVC}
Data = tuple[np.ndarray, np.ndarray]


def accuracy(data: Data, model: str, strength: float) -> float:
    """By cross-validation in three parts."""
    made: BaseEstimator = make_pipeline(StandardScaler(), MODELS[model](C=strength))
    return float(cross_val_score(made, *data, cv=3).mean())


def main(folder: str, n_trials: int) -> None:
    """Measure the past, then begin the study where it points."""
    past = {each.__name__: each(return_X_y=True) for each in (load_iris, load_wine, load_breast_cancer)}
    rows = [
        PastRow(task=task, params={"model": model, "C": c}, value=accuracy(data, model, c))
        for task, data in past.items()
        for model in MODELS
        for c in STRENGTHS
    ]

    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB").resize((12, 12))).ravel() for path in paths])
    images = pixels / 255, np.array([path.parent.name for path in paths])

    def objective(trial: optuna.Trial) -> float:
        model = trial.suggest_categorical("model", list(MODELS))
        return accuracy(images, model, trial.suggest_float("C", 1e-3, 1e2, log=True))

    sampler = PastSampler(PastTable.of(rows, candidate="model"), seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    best = study.best_trial
    print(f"best: {best.params['model']}, validation {best.value:.3f}, C {best.params['C']:g}, trial {best.number}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
