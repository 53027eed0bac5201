"""The ranking as prior and pruner of an own Optuna study: python examples/own_study.py FOLDER TRIALS [CANDIDATES].

The objective is the user's own: here a logistic regression on a candidate's image embeddings.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import optuna
import torch
from sklearn.linear_model import LogisticRegression

import vlmsel_auto
from vlmsel_auto import candidates
from vlmsel_auto.integrations.optuna_prior import CandidatePrior, PriorPruner, PriorSampler
from vlmsel_auto.models import zoo
from vlmsel_auto.records import IntArray
from vlmsel_auto.tasks.task import load_task


def main(folder: str, n_trials: int, wanted: str) -> None:
    """Rank once, then let the study start where the ranking points."""
    ranking = vlmsel_auto.rank(folder, candidates=wanted)
    ranked = candidates.resolve(ranking.order)

    # two lines make the ranking the study's prior
    prior = CandidatePrior.of(ranking, candidates=ranked)
    study = optuna.create_study(direction="maximize", sampler=PriorSampler(prior), pruner=PriorPruner(prior))

    by_id = {one.id: one for one in ranked}
    with tempfile.TemporaryDirectory() as scratch:
        views = list({one.view for one in ranked})
        task = load_task(Path(folder), views=views, workdir=Path(scratch))

        def objective(trial: optuna.Trial) -> float:
            chosen = by_id[trial.suggest_categorical("candidate", prior.names)]
            strength = trial.suggest_float("C", 1e-2, 1e3, log=True)
            model = zoo.load(chosen, text=False)

            def embed(indices: IntArray) -> torch.Tensor:
                with torch.inference_mode():
                    embedded = model.embed(model.normalise(task.pixels.read(chosen.view, indices)))
                return torch.nn.functional.normalize(embedded, dim=-1)

            classifier = LogisticRegression(C=strength, max_iter=500)
            classifier.fit(embed(task.train), task.labels[task.train])
            return float(classifier.score(embed(task.val), task.labels[task.val]))

        study.optimize(objective, n_trials=n_trials)
    best = study.best_trial
    print(f"best: {best.params['candidate']}, validation {best.value:.3f}, in trial {best.number}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "auto")  # noqa: PLR2004 - optional
