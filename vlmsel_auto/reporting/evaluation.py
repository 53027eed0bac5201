"""How good the prediction was: the ranking against what trials reached, and beside other orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlmsel_auto.ranking.agreement import TOO_FEW_FOR_TAU, agreement
from vlmsel_auto.records import Agreement, Ranking, TrialResult
from vlmsel_auto.reporting.report import Baseline, Split, actual_accuracies, best_trials
from vlmsel_auto.tuning.methods import label_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A ranking, evaluated; `SearchReport` has the same fields."""

    agreement: Agreement
    baselines: tuple[Baseline, ...]
    actual_on: Split


def evaluate(
    ranking: Ranking, trials: Sequence[TrialResult], *, chosen: int | None = None, seed: int = 0
) -> Evaluation:
    """Compare a ranking with the trials of all runs of its search.

    The truth is test where every tuned candidate has it, else validation. Validation chose each candidate's best trial
    and epoch, so it flatters; test was never looked at.

    Args:
        ranking: made before the trials.
        trials: in any state.
        chosen: number of the trial that stands for its candidate, see `best_trials`.
        seed: of the intervals.
    """
    best = best_trials(trials, chosen=chosen)
    on: Split = "test" if best and all(trial.test is not None for trial in best.values()) else "validation"
    actual = actual_accuracies(best, on=on)
    scores = {line.candidate: line.score for line in ranking.ranked}
    average = {line.candidate: line.signals["average"] for line in ranking.ranked if "average" in line.signals}
    mixed = len({trial.spec.method for trial in best.values()}) > 1
    baselines = [
        *([_one_method(scores, trials, on=on, seed=seed)] if mixed else []),
        *([_random_order(actual, seed=seed)] if actual else []),
        *([_average_order(average, actual, seed=seed)] if any(name in average for name in actual) else []),
    ]
    return Evaluation(agreement=_agreement(scores, actual, seed=seed), baselines=tuple(baselines), actual_on=on)


def _agreement(scores: Mapping[str, float], actual: Mapping[str, float], *, seed: int) -> Agreement:
    """Predicted scores (higher is better) against what tuned candidates reached; those without a score are left out."""
    names = [name for name in actual if name in scores]
    return agreement(
        np.array([scores[name] for name in names], dtype=np.float64),
        np.array([actual[name] for name in names], dtype=np.float64),
        seed=seed,
    )


def _one_method(scores: Mapping[str, float], trials: Sequence[TrialResult], *, on: Split, seed: int) -> Baseline:
    """The prediction judged by the method that most candidates were tuned by, where best trials are of several.

    Otherwise a candidate that alone was fine-tuned comes out first for that reason, whatever was predicted.
    """
    methods = dict.fromkeys(trial.spec.method for trial in trials)
    best = {method: best_trials([trial for trial in trials if trial.spec.method == method]) for method in methods}
    most = max(best, key=lambda method: len(best[method]))
    figures = _agreement(scores, actual_accuracies(best[most], on=on), seed=seed)
    return Baseline(
        name=f"the same, {label_of(most)} alone", agreement=figures, note=f"{figures.n} candidates have one"
    )


def _random_order(actual: Mapping[str, float], *, seed: int) -> Baseline:
    # equal scores are averaged over all orders of the tied: exactly the expectation of a random order, which has no
    # sampling interval of this kind
    random = _agreement(dict.fromkeys(actual, 0.0), actual, seed=seed)
    tau = 0.0 if len(actual) >= TOO_FEW_FOR_TAU and len(set(actual.values())) > 1 else None
    random = replace(random, tau_b=tau, weighted_tau=tau, ndcg5_interval=None, note="")
    return Baseline(name="random order", agreement=random, note="expected over all orders")


def _average_order(average: Mapping[str, float], actual: Mapping[str, float], *, seed: int) -> Baseline:
    """The library's plain average, as far as it knows the tuned candidates."""
    missing = sum(name not in average for name in actual)
    note = f"{missing} tuned candidates are not in the library" if missing else ""
    figures = _agreement(average, actual, seed=seed)
    return Baseline(name="average rank on the source tasks", agreement=figures, note=note)
