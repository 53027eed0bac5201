"""What a search is asked for: one record of small parts, which checks itself and gives the command that asks the same.

An option of `search` is a field here, its word in `SearchRequest.command`, and the place that reads it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vlmsel_auto.errors import InputError
from vlmsel_auto.library.records import Library
from vlmsel_auto.models.limits import NO_LIMITS, Limits
from vlmsel_auto.pipeline.choose import AUTO
from vlmsel_auto.pipeline.rank import SHOTS
from vlmsel_auto.pipeline.workers import check_workers
from vlmsel_auto.planning.objective import ACCURACY, Objective
from vlmsel_auto.planning.plan import ACTIVE
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Budget
from vlmsel_auto.reporting.trackers import names_of
from vlmsel_auto.study.results import MOST_MEMBERS
from vlmsel_auto.tasks.class_names import class_names_text
from vlmsel_auto.tasks.datasets import TaskData
from vlmsel_auto.tuning.methods import METHODS

if TYPE_CHECKING:
    from vlmsel_auto.reporting.loggers import Loggers  # imports Lightning

PRICE: Final = 100 * POLICY.price  # points a minute
_SEEDS: Final = 2**32  # seeds are below: NumPy's older generator, Optuna and Lightning take no more


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Which images, and what is used of them."""

    source: TaskData
    shots: int = SHOTS
    classes: Sequence[str] | None = None
    unlabelled: bool = False
    most: int | None = None  # that are screened where there are no labels; None: as many as time allows
    test_split: bool = True
    most_test: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Wanted:
    """What is chosen from."""

    names: str | Sequence[str] | Path = AUTO
    limits: Limits = NO_LIMITS
    offline: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Aim:
    """What is looked for, and how."""

    objective: Objective = ACCURACY
    price: float = PRICE
    methods: tuple[str, ...] = tuple(each.name for each in METHODS)
    ensemble: int = 8
    top_k: int = ACTIVE


@dataclass(frozen=True, kw_only=True, eq=False)
class Compute:
    """Where models run."""

    device: str = "auto"
    workers: int | None = None
    ray: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Where things are read from and kept."""

    workdir: Path
    library: Library | str | Path | None = None
    cache_dir: Path | None = None
    storage: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchRequest:
    """A search; `vlmsel_auto.search` says what each field means.

    Raises:
        InputError: a number is out of range, a logger is unknown, or there are workers of two kinds.
    """

    images: Images
    places: Places
    wanted: Wanted = field(default_factory=Wanted)
    aim: Aim = field(default_factory=Aim)
    compute: Compute = field(default_factory=Compute)
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    learn: bool = True
    thumbnails: bool = True
    loggers: Loggers = ()

    def __post_init__(self) -> None:
        """Check what needs no file."""
        price, ensemble = self.aim.price, self.aim.ensemble
        if not (math.isfinite(price) and price >= 0):
            raise InputError(f"price must be points a minute, at least 0, but got {price}")
        if not 0 <= ensemble <= MOST_MEMBERS:
            raise InputError(f"ensemble must be 0 to {MOST_MEMBERS} members, but got {ensemble}")
        if not 0 <= self.seed < _SEEDS:
            raise InputError(f"seed must be 0 to {_SEEDS - 1:,}, but got {self.seed}")
        check_workers(workers=self.compute.workers, ray=self.compute.ray)
        names_of(self.loggers)

    def command(self, folder: str | Path) -> str:
        """The command line on a task folder; defaults are left out, and so is the password of a storage."""
        return shlex.join(["vlmsel-auto", "search", str(folder), *self._words()])

    def _words(self) -> list[str]:
        images, wanted, aim, compute, places = self.images, self.wanted, self.aim, self.compute, self.places
        names = [str(wanted.names)] if isinstance(wanted.names, (str, Path)) else list(wanted.names)
        words = [] if names == [AUTO] else ["--candidates", ",".join(names)]
        words += _limits(wanted.limits)
        switches = {
            "--offline": wanted.offline, "--no-test-split": not images.test_split, "--no-images": not self.thumbnails,
            "--unlabelled": images.unlabelled,
        }  # fmt: skip
        words += [word for word, is_on in switches.items() if is_on]
        values = {
            "--time-budget": None if self.budget.seconds is None else f"{self.budget.seconds:g}",
            "--max-trials": self.budget.trials,
            "--price": None if aim.price == PRICE else f"{aim.price:g}",
            "--objective": str(aim.objective) if aim.objective else None,
            "--method": ",".join(aim.methods) if len(aim.methods) < len(METHODS) else None,
            "--shots": None if images.shots == SHOTS else images.shots,
            "--classes": None if images.classes is None else class_names_text(images.classes),
            "--images": images.most,
            "--test-images": images.most_test,
            "--workers": compute.workers,
            "--ray": compute.ray,
            "--log": ",".join(names_of(self.loggers)) or None,
        }
        words += [word for name, value in values.items() if value is not None for word in (name, str(value))]
        if places.storage is not None:
            from vlmsel_auto.study.storage import without_password  # loads SQLAlchemy

            words += ["--storage", without_password(places.storage)]
        return [*words, "--seed", str(self.seed), "--workdir", str(places.workdir)]


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
