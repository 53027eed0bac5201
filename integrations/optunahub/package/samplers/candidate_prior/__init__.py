"""`vlmsel_auto.integrations.optuna_prior` for OptunaHub: candidates in the order of their expected improvement."""

from vlmsel_auto.integrations.optuna_prior import CandidatePrior, PriorPruner, PriorSampler, enqueue

__all__ = ["CandidatePrior", "PriorPruner", "PriorSampler", "enqueue"]
