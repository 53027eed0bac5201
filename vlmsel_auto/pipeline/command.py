"""What a search is asked for: its numbers checked, and as a user would type it again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vlmsel_auto.models.limits import Limits
from vlmsel_auto.planning.objective import Objective
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Budget
from vlmsel_auto.study.database import without_password
from vlmsel_auto.tasks.classnames import class_names_text
from vlmsel_auto.tuning.methods import METHODS

SHOTS: Final = 16
PRICE: Final = 100 * POLICY.price  # points a minute
_SEEDS: Final = 2**32  # seeds are below: NumPy's older generator, Optuna and Lightning take no more


def command_of(
    task_dir: str | Path,
    candidates: str | Sequence[str] | Path,
    *,
    limits: Limits,
    offline: bool,
    budget: Budget,
    price: float,
    objective: Objective,
    methods: Sequence[str],
    shots: int,
    seed: int,
    workdir: Path,
    classes: Sequence[str] | None = None,
    unlabelled: bool = False,
    images: int | None = None,
    test_split: bool = True,
    test_images: int | None = None,
    thumbnails: bool = True,
    trackers: Sequence[str] = (),
    workers: int | None = None,
    ray: str | None = None,
    storage: str | None = None,
) -> str:
    """Words of the command line; what is left at its default is left out, and so is the password of a database."""
    names = [str(candidates)] if isinstance(candidates, (str, Path)) else list(candidates)
    words = ["vlmsel-auto", "search", str(task_dir)]
    if names != ["auto"]:
        words += ["--candidates", ",".join(names)]
    words += _limits(limits)
    switches = {"--offline": offline, "--no-test-split": not test_split, "--no-images": not thumbnails}
    words += [word for word, is_on in switches.items() if is_on]
    if budget.seconds is not None:
        words += ["--time-budget", f"{budget.seconds:g}"]
    if budget.trials is not None:
        words += ["--max-trials", str(budget.trials)]
    if price != PRICE:
        words += ["--price", f"{price:g}"]
    if objective:
        words += ["--objective", str(objective)]
    if len(methods) < len(METHODS):
        words += ["--method", ",".join(methods)]
    if shots != SHOTS:
        words += ["--shots", str(shots)]
    words += _without_labels(classes, unlabelled=unlabelled, images=images)
    values = {
        "--test-images": test_images,
        "--workers": workers,
        "--ray": ray,
        "--log": ",".join(trackers) or None,
        "--storage": None if storage is None else without_password(storage),
    }
    words += [word for name, value in values.items() if value is not None for word in (name, str(value))]
    return shlex.join([*words, "--seed", str(seed), "--workdir", str(workdir)])


def _limits(limits: Limits) -> list[str]:
    """Limits as the command line takes them."""
    words: list[str] = []
    if limits.max_params is not None:
        words += ["--max-params", str(limits.max_params)]
    if limits.max_download_bytes is not None:
        words += ["--max-download", str(limits.max_download_bytes)]
    if limits.max_memory_bytes is not None:
        words += ["--max-memory", str(limits.max_memory_bytes)]
    if limits.max_latency is not None:
        words += ["--max-latency", f"{1e3 * limits.max_latency:g}ms"]
    if limits.image_size is not None:
        least, most = limits.image_size
        words += ["--image-size", f"{least:g}-{'' if math.isinf(most) else f'{most:g}'}"]
    if limits.licences:
        words += ["--licence", ",".join(limits.licences)]
    return words


def _without_labels(classes: Sequence[str] | None, *, unlabelled: bool, images: int | None) -> list[str]:
    words = [] if classes is None else ["--classes", class_names_text(classes)]
    if unlabelled:
        words += ["--unlabelled"]
    return words if images is None else [*words, "--images", str(images)]
