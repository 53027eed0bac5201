"""A table of past trials as the start of somebody's OWN Optuna study. Public interfaces of Optuna only.

    past = PastTable.of(rows, candidate="model")          # rows: task, parameters, value of each past trial
    study = optuna.create_study(direction="maximize", sampler=PastSampler(past))

The settings of the table (whole combinations of its parameters) are tried in the order of their expected improvement,
which is updated by the study's own trials (`_arms.py`); when all were tried, the wrapped sampler goes on. State lives
in the study's trials alone, so any storage, several workers and resumed studies work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from ._arms import ArmBelief, learn_arms, posterior_arms
from .candidate_prior import Value
from .optuna_sampler import Params, ProposingSampler, begun_trials, holds, minimises, value_in

__all__ = ["PastRow", "PastSampler", "PastTable"]


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
        if not np.isfinite(np.array([row.value for row in rows], dtype=np.float64)).all():  # None is NaN
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

    def index(self, params: Params) -> int | None:
        """The setting that ``params`` are; None: none of the table."""
        key = tuple(params.get(name) for name in self.names)
        return self.arms.index(key) if key in self.arms else None

    def params(self, arm: int) -> dict[str, Value]:
        """Parameters of a setting."""
        return dict(zip(self.names, self.arms[arm], strict=True))


class PastSampler(ProposingSampler):
    """Proposes the settings of a table of past trials; everything else is the wrapped sampler's.

    Settings that the study's space does not have (a model that is not offered, a number off its grid) are passed over.
    With several objectives the first one is what the table speaks of. Trials that broke a constraint count as tried,
    not as good.

    Args:
        past: what past trials say.
        sampler: as for `ProposingSampler`; also for when every setting was tried.
        seed: likewise.

    Raises:
        ValueError: the sampler is a `GridSampler`.
    """

    def __init__(self, past: PastTable, sampler: BaseSampler | None = None, *, seed: int | None = None) -> None:
        super().__init__(sampler, seed=seed)
        self._past = past

    def proposal(self, study: Study, trial: FrozenTrial, kinds: Mapping[str, BaseDistribution]) -> Params:
        """The best untried setting of the table that this space holds and that agrees with what the trial has."""
        past = self._past
        if not kinds.keys() & set(past.names):
            return {}
        tried = [(past.index(each.params), value_in(each)) for each in begun_trials(study, but=trial)]
        known = {name: trial.params[name] for name in past.names if name in trial.params}
        taken = {arm for arm, _ in tried}
        untried = {arm: past.params(arm) for arm in range(len(past.arms)) if arm not in taken}
        fitting = [
            arm
            for arm, params in untried.items()
            if known.items() <= params.items()
            and all(holds(kinds[name], value) for name, value in params.items() if name in kinds)
        ]
        if not fitting:
            return {}
        sign = -1 if minimises(study) else 1
        told = [(arm, sign * value) for arm, value in tried if arm is not None and value is not None]
        told = [(arm, value) for arm, value in told if math.isfinite(value)]
        now = posterior_arms(past.belief, tried=[arm for arm, _ in told], values=[value for _, value in told])
        return untried[max(fitting, key=lambda arm: float(now.gain[arm]))]
