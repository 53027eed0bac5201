"""A table of past trials as the start of somebody's OWN Optuna study. Public interfaces of Optuna only.

    past = PastTable.of(rows, candidate="model")          # rows: task, parameters, value of each past trial
    study = optuna.create_study(direction="maximize", sampler=PastSampler(past))

The settings of the table (whole combinations of its parameters) are tried in the order of their expected improvement,
which is updated by the study's own trials (`_arms.py`); when all were tried, the wrapped sampler goes on. State lives
in the study's trials alone, so any storage, several workers and resumed studies work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from ._arms import ArmBelief, learn_arms, posterior_arms
from ._wrapped import WrappingSampler, sign_of

__all__ = ["PastRow", "PastSampler", "PastTable"]

Value = str | float


@dataclass(frozen=True, kw_only=True, slots=True)
class PastRow:
    """One trial of another task."""

    task: str
    params: Mapping[str, Value]
    value: float  # larger is better; the unit of the new study's objective


@dataclass(frozen=True, kw_only=True, eq=False)
class PastTable:
    """What past trials say of A settings."""

    names: tuple[str, ...]  # parameters
    arms: tuple[tuple[Value, ...], ...]  # (A,) their values
    belief: ArmBelief

    @classmethod
    def of(cls, rows: Sequence[PastRow], *, candidate: str) -> PastTable:
        """From rows; trials of the same task and setting are averaged.

        Args:
            rows: past trials, all with the same parameters. The new study's own task must not be among them if its
                result is to say how well the past predicts.
            candidate: name of the parameter that says which model it was.

        Raises:
            ValueError: rows with different parameters, or without ``candidate``; no task with two settings; a value
                that is not finite.
        """
        names = tuple(sorted(rows[0].params)) if rows else ()
        if candidate not in names or any(set(row.params) != set(names) for row in rows):
            raise ValueError(f"every row must have the same parameters, {candidate!r} among them, but got {names!r}")
        if not np.isfinite([row.value for row in rows]).all():
            raise ValueError(f"values must be finite, but got {[row.value for row in rows]!r}")
        keys = [tuple(row.params[name] for name in names) for row in rows]
        arms = tuple(sorted(set(keys), key=str))
        tasks = sorted({row.task for row in rows})
        sums, counts = np.zeros((2, len(tasks), len(arms)))
        for key, row in zip(keys, rows, strict=True):
            cell = tasks.index(row.task), arms.index(key)
            sums[cell] += row.value
            counts[cell] += 1
        values = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        at = names.index(candidate)
        models = sorted({arm[at] for arm in arms}, key=str)
        settings = sorted({arm[:at] + arm[at + 1 :] for arm in arms}, key=str)
        belief = learn_arms(
            values,
            candidates=np.array([models.index(arm[at]) for arm in arms]),
            settings=np.array([settings.index(arm[:at] + arm[at + 1 :]) for arm in arms]),
        )
        return cls(names=names, arms=arms, belief=belief)

    def index(self, params: Mapping[str, object]) -> int | None:
        """The setting that ``params`` are; None: none of the table."""
        key = tuple(params.get(name) for name in self.names)
        return self.arms.index(key) if key in self.arms else None


class PastSampler(WrappingSampler):
    """Proposes the settings of a table of past trials; everything else is the wrapped sampler's.

    Args:
        past: what past trials say.
        sampler: the wrapped sampler, also for when every setting was tried; None is TPE.
        seed: of the default sampler.
    """

    def __init__(self, past: PastTable, sampler: BaseSampler | None = None, *, seed: int | None = None) -> None:
        super().__init__(sampler, seed=seed)
        self._past = past

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The wrapped sampler's, without the table's parameters while it has settings left."""
        space = super().infer_relative_search_space(study, trial)
        taken = self._past.names if self._open(study, trial) else ()
        return {name: each for name, each in space.items() if name not in taken}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> object:
        """The value of the best setting that agrees with what this trial has already; else the wrapped sampler's."""
        if param_name in self._past.names:
            at = self._past.names.index(param_name)
            fitting = [arm for arm in self._open(study, trial) if _holds(param_distribution, self._past.arms[arm][at])]
            if fitting:
                gains = self._gains(study)
                return self._past.arms[max(fitting, key=lambda arm: gains[arm])][at]
        return super().sample_independent(study, trial, param_name, param_distribution)

    def _open(self, study: Study, trial: FrozenTrial) -> list[int]:
        """Settings that no other trial has, and that agree with the parameters of ``trial`` so far."""
        others = (each for each in study.get_trials(deepcopy=False) if each.number != trial.number)
        taken = {self._past.index(each.params) for each in others}
        known = {name: trial.params[name] for name in self._past.names if name in trial.params}
        return [
            place
            for place, arm in enumerate(self._past.arms)
            if place not in taken and all(arm[self._past.names.index(name)] == known[name] for name in known)
        ]

    def _gains(self, study: Study) -> Sequence[float]:
        """Expected improvement of every setting; before any trial, its mean."""
        tried, values = [], []
        for each in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            arm = self._past.index(each.params)
            if arm is not None and each.values and np.isfinite(each.values[0]):
                tried.append(arm)
                values.append(sign_of(study) * each.values[0])
        belief = self._past.belief
        gains = posterior_arms(belief, tried=tried, values=values).gain if tried else belief.mean
        return [float(each) for each in gains]


def _holds(distribution: BaseDistribution, value: Value) -> bool:
    """Whether ``value`` may be suggested."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, str) or not isinstance(distribution, (IntDistribution, FloatDistribution)):
        return False
    return distribution.low <= value <= distribution.high
