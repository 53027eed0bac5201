"""A study of eight candidates whose truth is known."""

import numpy as np
import optuna

from helpers.rankings import ranking_of
from vlmsel_auto.integrations.optuna_prior import CandidatePrior
from vlmsel_auto.records import Basis, Candidate, ImageView

NAMES = tuple(f"model-{letter}" for letter in "abcdefgh")
TRUTH = np.array([0.60, 0.62, 0.90, 0.55, 0.58, 0.50, 0.61, 0.57])  # the best is model-c


def candidates() -> list[Candidate]:
    return [
        Candidate(id=name, source="local-dir", arch=f"arch-{name}", tag=f"tag-{name}", view=ImageView(size=32))
        for name in NAMES
    ]


def prior(
    scores: np.ndarray = TRUTH, unit: float = 1.0, sd: float = 0.5, settings: dict[str, object] | None = None
) -> CandidatePrior:
    standard = (scores - scores.mean()) / scores.std()
    ranking = ranking_of(dict(zip(NAMES, standard, strict=True)), sd=sd, basis=Basis.NOTHING)
    return CandidatePrior.of(ranking, candidates=candidates(), unit=unit, settings=settings)


def objective(trial: optuna.Trial) -> float:
    name = trial.suggest_categorical("candidate", NAMES)
    rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    return float(TRUTH[NAMES.index(name)]) - 0.01 * abs(np.log10(rate) + 3)
