"""A sampler that proposes parameters of its own and leaves all others to a wrapped one; what trials reached."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GridSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from .candidate_prior import Value

Params: TypeAlias = Mapping[str, object]  # by name

_STEP_ERROR = 1e-8  # of a step, as Optuna has it


class ProposingSampler(BaseSampler):
    """Sets what `proposal` says; everything else is the wrapped sampler's, which is asked only then.

    Args:
        sampler: the wrapped sampler; None is TPE. For every combination once take `optuna.samplers.BruteForceSampler`.
        seed: of the default sampler.

    Raises:
        ValueError: a `GridSampler`, which takes every trial for the cell of its own that it gave it.
    """

    def __init__(self, sampler: BaseSampler | None = None, *, seed: int | None = None) -> None:
        if isinstance(sampler, GridSampler):
            raise ValueError(  # noqa: TRY004 - a sampler is expected, and this is one
                "The wrapped sampler must see what trials really had, which a grid does not: it would leave out the "
                "cells of those that were chosen here. Use optuna.samplers.BruteForceSampler, which tries every "
                f"combination once too, but got {type(sampler).__name__}"
            )
        self._sampler = sampler if sampler is not None else TPESampler(seed=seed)

    @abstractmethod
    def proposal(self, study: Study, trial: FrozenTrial, kinds: Mapping[str, BaseDistribution]) -> Params:
        """The parameters that this sampler sets in the trial, given those that it has; ``kinds``: what is asked for."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The wrapped sampler's, without what is proposed."""
        space = self._sampler.infer_relative_search_space(study, trial)
        taken = self.proposal(study, trial, space)
        return {name: kind for name, kind in space.items() if name not in taken}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        """The wrapped sampler's."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> object:
        """What is proposed, else the wrapped sampler's."""
        mine = self.proposal(study, trial, {param_name: param_distribution})
        if param_name in mine:
            return mine[param_name]
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """The wrapped sampler's, as Optuna asks for in every thread or process."""
        self._sampler.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """The wrapped sampler's."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """The wrapped sampler's."""
        self._sampler.after_trial(study, trial, state, values)


def minimises(study: Study) -> bool:
    """Whether smaller values of the study's first objective are better."""
    return study.directions[0] == StudyDirection.MINIMIZE


def begun_trials(study: Study, *, but: FrozenTrial) -> list[FrozenTrial]:
    """Trials that run or ended, in order, ``but`` this one."""
    trials = study.get_trials(deepcopy=False)
    return [each for each in trials if each.state != TrialState.WAITING and each.number != but.number]


def value_in(trial: FrozenTrial) -> float | None:
    """The first objective's value of a trial that ended and kept to its constraints; None otherwise."""
    feasible = all(value <= 0 for value in trial.constraints.values()) if trial.constraints else True
    return trial.values[0] if trial.state == TrialState.COMPLETE and trial.values and feasible else None


def holds(distribution: BaseDistribution, value: Value) -> bool:
    """Whether a parameter may have ``value``: a choice, or a number of the range and of its steps."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, str) or not isinstance(distribution, (IntDistribution, FloatDistribution)):
        return False
    steps = 0.0 if distribution.step is None else (value - distribution.low) / distribution.step
    return distribution.low <= value <= distribution.high and abs(steps - round(steps)) < _STEP_ERROR
