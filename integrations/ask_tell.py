"""What adapters to other projects wrap: a search that is asked for parameters and told what they gave.

`CandidateSearch` and `PastSearch` are such searches. They are plain arithmetic on what they were told: no study, no
clock, no random numbers, and no import of Optuna, Ray or torch. As in cmaes the caller owns the loop:

    while not search.should_stop():
        params = search.ask()
        search.tell(params, train(params))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

from vlmsel_auto.planning.curves import goes_on

Mode: TypeAlias = Literal["max", "min"]
Value: TypeAlias = str | float
Params: TypeAlias = Mapping[str, object]  # by name; what a search does not know is left to the caller


class AskTell(Protocol):
    """A search. Trials may run at the same time: every `ask` is one, until `tell` or `fail` ends it."""

    @property
    def mode(self) -> Mode:
        """Whether larger or smaller values are better."""
        ...

    def ask(self) -> dict[str, Value] | None:
        """Parameters of the trial that should come next; None: there is none left to propose."""
        ...

    def begin(self, params: Params) -> None:
        """A trial runs that was not asked for here."""
        ...

    def tell(self, params: Params, value: float | None) -> None:
        """A trial ended with this value, whoever chose its parameters; None or NaN: with none that counts (pruned)."""
        ...

    def fail(self, params: Params) -> None:
        """A trial broke."""
        ...

    def should_prune(self, params: Params, *, step: int, value: float) -> bool:
        """Whether a running trial that reached ``value`` should end; NaN should. To be asked once a trial and step."""
        ...

    def should_stop(self) -> bool:
        """Whether no further trial promises anything."""
        ...


def sign_of(mode: Mode) -> float:
    """1.0 where larger values are better, else -1.0.

    Raises:
        ValueError: it is neither "max" nor "min".
    """
    if mode not in {"max", "min"}:
        raise ValueError(f"mode must be 'max' or 'min', but got {mode!r}")
    return 1.0 if mode == "max" else -1.0


class Rungs:
    """Values by step, larger is better: a trial goes on while it is in the better half of those that got as far."""

    def __init__(self) -> None:
        self._reached: dict[int, list[float]] = {}

    def goes_on(self, value: float, *, step: int, handicap: float = 0.0) -> bool:
        """Whether ``value`` less ``handicap`` is in the better half at ``step``; others will be compared with it.

        NaN is in no half, and nothing is compared with it.
        """
        if math.isnan(value):
            return False
        others = self._reached.setdefault(step, [])
        on = goes_on(value - handicap, others)
        others.append(value)
        return on
