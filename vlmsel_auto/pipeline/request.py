"""What `rank`, `label` and `search` are asked alike: a record whose fields are their keywords and options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vlmsel_auto.errors import InputError
from vlmsel_auto.pipeline.options import Option, check_ranges, option, options
from vlmsel_auto.tasks.class_names import class_names_text, read_class_names
from vlmsel_auto.tasks.group_names import Groups, read_rule

if TYPE_CHECKING:  # these load NumPy
    from vlmsel_auto.library.records import Library
    from vlmsel_auto.models.limits import Limits
    from vlmsel_auto.tasks.datasets import TaskData

AUTO: Final = "auto"
SHOTS: Final = 16
_SEEDS: Final = 2**32  # seeds are below: NumPy's older generator, Optuna and Lightning take no more


def is_auto(names: str | Sequence[str] | Path) -> bool:
    """Whether what suits this machine is asked for."""
    return names == AUTO or (not isinstance(names, (str, Path)) and list(names) == [AUTO])


def _no_limits() -> Limits:
    from vlmsel_auto.models.limits import NO_LIMITS

    return NO_LIMITS


def _read_limits(*typed: str | None) -> Limits:
    from vlmsel_auto.models.limits import read_limits

    return read_limits(**dict(zip(_LIMITS, typed, strict=True)))


def _limits_as_typed(limits: Limits) -> Mapping[str, object]:
    found: dict[str, object] = {
        "max_params": limits.max_params,
        "max_download": limits.max_download_bytes,
        "max_memory": limits.max_memory_bytes,
        "max_latency": None if limits.max_latency is None else f"{1e3 * limits.max_latency:g}ms",
        "licence": ",".join(limits.licences) or None,
    }
    if limits.image_size is not None:
        least, most = limits.image_size
        found["image_size"] = f"{least:g}-{'' if math.isinf(most) else f'{most:g}'}"
    return {name: value for name, value in found.items() if value is not None}


def _path_as_typed(value: object) -> str | None:
    return str(value) if isinstance(value, (str, Path)) else None


def _candidates_as_typed(names: str | Sequence[str] | Path) -> str:
    return str(names) if isinstance(names, (str, Path)) else ",".join(names)


_LIMITS: Final = {
    "max_params": Option(metavar="N", help="Most parameters of a candidate: 150M, 1.5G."),
    "max_download": Option(metavar="BYTES", help="Most to download for one candidate: 500MB, 2GB."),
    "max_memory": Option(metavar="BYTES", help="Most memory that a candidate may take: 4GB."),
    "max_latency": Option(metavar="MS", help="Most milliseconds an image, among many on this machine: 40."),
    "image_size": Option(metavar="PIXELS", help="Side of a candidate's input: 224, 224-384, 336- or -256."),
    "licence": Option(metavar="NAMES", help="Licences that are allowed: MIT,Apache-2.0. Unknown ones are not."),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskRequest:
    """Images, candidates, and what these are measured with; `vlmsel_auto.rank` says more of each field.

    Raises:
        InputError: a number is out of range.
    """

    data: TaskData
    candidates: str | Sequence[str] | Path = option(
        AUTO,
        "What to choose from: auto (what suits this machine), mini-zoo, a preset (tiny, laptop, server, all), a "
        "candidate's id, open_clip ARCH/TAG, hf-hub:ORG/NAME, timm:NAME or local-dir:FOLDER. Several: separate with "
        "commas or repeat the option. `vlmsel-auto zoo` lists them.",
        flags=("--candidates", "-c"), kind=list[str], typed=[AUTO], read=tuple, show=_candidates_as_typed,
    )  # fmt: skip
    limits: Limits = options(_no_limits, read=_read_limits, show=_limits_as_typed, **_LIMITS)
    offline: bool = option(False, "Ask no hub: use what lies on this disk.")
    shots: int = option(SHOTS, "Labelled training images a class that the ranking may look at.", least=1)
    classes: Sequence[str] | None = option(
        None,
        'Classes of images without labels: "cat, dog" (names with commas in quotation marks of their own), or a text '
        "file of one a line; default: those in task.toml.",
        kind=str, metavar="NAMES", read=read_class_names, show=class_names_text,
    )  # fmt: skip
    groups: Groups | None = option(
        None,
        "Images that belong together, as frames of one video do: no split or fold divides them. parent: those in "
        "folders of one name; or a regular expression whose one (...) finds the group in the file name, such as "
        "'(video[0-9]+)_'; default: the column group of labels.csv, or group in task.toml.",
        kind=str, metavar="RULE", show=lambda groups: groups if isinstance(groups, str) else None,
    )  # fmt: skip
    unlabelled: bool = option(False, "Names of folders are no classes, and labels are not used.")
    images: int | None = option(
        None,
        "Most images that are screened where there are no labels; default: as many as 60 seconds, or a fifth of a "
        "shorter time budget, allow on this machine, at least 100.",
        kind=int, metavar="N", least=1,
    )  # fmt: skip
    seed: int = option(0, "Seed of split, few-shot set and trials.", least=0)
    library: Library | str | Path | None = option(
        None, "Library of source tasks; default: the shipped one merged with your own.", kind=Path, show=_path_as_typed
    )
    cache_dir: str | Path | None = option(
        None, "Folder of derived data; default: $VLMSEL_CACHE or the user's cache folder.", kind=Path
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps.")

    def __post_init__(self) -> None:
        """Check what needs no file."""
        if not 0 <= self.seed < _SEEDS:
            raise InputError(f"seed must be 0 to {_SEEDS - 1:,}, but got {self.seed}")
        if isinstance(self.groups, str):
            read_rule(self.groups)
        check_ranges(self)

    @property
    def groups_of_folder(self) -> Groups | None:
        """Groups that are asked for of a folder; those of data in memory are written with them."""
        return self.groups if isinstance(self.data, (str, PathLike)) else None
