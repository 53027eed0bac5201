"""What the samplers of this package share: a wrapped sampler that does everything they do not do themselves."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GridSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class WrappingSampler(BaseSampler):
    """Passes everything on to ``sampler``; None is TPE with ``seed``.

    Raises:
        ValueError: a `GridSampler`, which takes every trial for the cell of its own that it gave it.
    """

    def __init__(self, sampler: BaseSampler | None, *, seed: int | None) -> None:
        if isinstance(sampler, GridSampler):
            raise ValueError(  # noqa: TRY004 - a sampler is expected, and this is one
                "The wrapped sampler must see what trials really had, which a grid does not: it would leave out the "
                "cells of those that were chosen here. Use optuna.samplers.BruteForceSampler, which tries every "
                f"combination once too, but got {type(sampler).__name__}"
            )
        self._sampler = sampler if sampler is not None else TPESampler(seed=seed)

    def reseed_rng(self) -> None:
        """The wrapped sampler's, as Optuna asks for in every thread or process."""
        self._sampler.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The wrapped sampler's."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        """The wrapped sampler's."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> object:
        """The wrapped sampler's."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """The wrapped sampler's."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """The wrapped sampler's."""
        self._sampler.after_trial(study, trial, state, values)
