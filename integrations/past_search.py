"""Settings from a table of past trials, the most promising first: ask and tell, without anyone's study.

Use:

search = PastSearch(PastTable.of(rows, candidate="model"))  # rows: task, parameters, value of each past trial
params = search.ask()  # {"model": "a", "C": 10.0}
search.tell(params, accuracy)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ._arms import ArmBelief, learn_arms, posterior_arms
from .ask_tell import Mode, Params, Rungs, Value, sign_of


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


class PastSearch:
    """Tries each setting of a table once, by expected improvement, which every trial on the new task changes.

    Args:
        past: what past trials say.
        mode: whether larger or smaller values are better; the table's values are such that larger is better.

    Raises:
        ValueError: another mode.
    """

    def __init__(self, past: PastTable, *, mode: Mode = "max") -> None:
        self.past = past
        self.mode: Mode = mode
        self._sign = sign_of(mode)
        self._taken: set[int] = set()
        self._told: list[tuple[int, float]] = []  # setting and value
        self._rungs = Rungs()

    def ask(self) -> dict[str, Value] | None:
        """The untried setting with the largest expected improvement; None when every one was tried."""
        params = self.propose({})
        if params is not None:
            self.begin(params)
        return params

    def propose(
        self, given: Params, *, allows: Callable[[Mapping[str, Value]], bool] = lambda _: True
    ) -> dict[str, Value] | None:
        """The most promising untried setting among those that agree with ``given`` and that ``allows`` lets through."""
        known = {name: given[name] for name in self.past.names if name in given}
        untried = (self.past.params(arm) for arm in range(len(self.past.arms)) if arm not in self._taken)
        fitting = [each for each in untried if known.items() <= each.items() and allows(each)]
        if not fitting:
            return None
        tried, values = [arm for arm, _ in self._told], [value for _, value in self._told]
        gains = posterior_arms(self.past.belief, tried=tried, values=values).gain
        return max(fitting, key=lambda each: float(gains[self.past.arms.index(tuple(each.values()))]))

    def begin(self, params: Params) -> None:
        """A trial of these parameters was begun: they are not proposed again. Others than the table's are ignored."""
        arm = self.past.index(params)
        if arm is not None:
            self._taken.add(arm)

    def tell(self, params: Params, value: float | None) -> None:
        """A trial ended with this value, larger being better by `mode`; None or not finite: it does not count."""
        self.begin(params)
        arm = self.past.index(params)
        if arm is not None and value is not None and math.isfinite(value):
            self._told.append((arm, self._sign * value))

    def fail(self, params: Params) -> None:
        """A trial broke; its setting would break again."""
        self.begin(params)

    def should_prune(self, params: Params, *, step: int, value: float) -> bool:
        """Whether the trial should end, by successive halving."""
        del params  # every setting is as good as another
        return not self._rungs.goes_on(self._sign * value, step=step)

    def should_stop(self) -> bool:
        """Whether every setting was tried."""
        return len(self._taken) == len(self.past.arms)
