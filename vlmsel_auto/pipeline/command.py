"""The search as a user would type it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Budget
from vlmsel_auto.tuning.methods import METHODS

SHOTS: Final = 16
PRICE: Final = 100 * POLICY.price  # points a minute


def command_of(
    task_dir: str | Path,
    candidates: str | Sequence[str] | Path,
    *,
    budget: Budget,
    price: float,
    methods: Sequence[str],
    shots: int,
    seed: int,
    workdir: Path,
) -> str:
    """Words of the command line; what is left at its default is left out."""
    names = [str(candidates)] if isinstance(candidates, (str, Path)) else list(candidates)
    words = ["vlmsel-auto", "search", str(task_dir)]
    if names != ["mini-zoo"]:
        words += ["--candidates", ",".join(names)]
    if budget.seconds is not None:
        words += ["--time-budget", f"{budget.seconds:g}"]
    if budget.trials is not None:
        words += ["--max-trials", str(budget.trials)]
    if price != PRICE:
        words += ["--price", f"{price:g}"]
    if len(methods) < len(METHODS):
        words += ["--method", ",".join(methods)]
    if shots != SHOTS:
        words += ["--shots", str(shots)]
    return shlex.join([*words, "--seed", str(seed), "--workdir", str(workdir)])
