"""Numbers that a search is asked for, checked before anything is read."""

from __future__ import annotations

import math
from typing import Final

from vlmsel_auto.errors import InputError
from vlmsel_auto.study.results import MOST_MEMBERS

_SEEDS: Final = 2**32  # seeds are below: NumPy's older generator, Optuna and Lightning take no more


def check_numbers(*, price: float, ensemble: int, seed: int) -> None:
    """Check what `search` says of them.

    Raises:
        InputError: one is out of range.
    """
    if not (math.isfinite(price) and price >= 0):
        raise InputError(f"price must be points a minute, at least 0, but got {price}")
    if not 0 <= ensemble <= MOST_MEMBERS:
        raise InputError(f"ensemble must be 0 to {MOST_MEMBERS} members, but got {ensemble}")
    if not 0 <= seed < _SEEDS:
        raise InputError(f"seed must be 0 to {_SEEDS - 1:,}, but got {seed}")
