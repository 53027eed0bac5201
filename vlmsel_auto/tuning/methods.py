"""The table of methods. A method is one module of this room, with a function ``run(work)``, and one row here.

Nothing else compares with a method's name: what plans, studies, exports and reports need of it stands in its row. This
module imports no torch.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from vlmsel_auto.errors import InputError
from vlmsel_auto.planning.method import Method, Part, Trains
from vlmsel_auto.planning.space import EPOCHS, EPOCHS_FACTOR, Range
from vlmsel_auto.records import Candidate
from vlmsel_auto.tuning.recipes import rate_of, recipe_of

_EPOCHS: Final = 25  # of a default trial of a tower (benchmarks/tuning/fits_worth.py)
_FEWEST_EPOCHS: Final = 3
_MOST_SHOWN: Final = 12_500  # images, repeats counted: more of them are shown less often


def _no_settings(candidate: Candidate, train_images: int, images_per_trial: int | None) -> Mapping[str, Range]:
    del candidate, train_images, images_per_trial
    return {}


def _tower_ranges(
    candidate: Candidate, train_images: int, images_per_trial: int | None, *, part: Part | None = None
) -> Mapping[str, Range]:
    shown = _MOST_SHOWN if images_per_trial is None else images_per_trial
    return {
        "learning_rate": Range.around(rate_of(candidate, part or recipe_of(candidate).trains), 6.0),
        "weight_decay": Range(low=2.5e-3, high=1.0, log=True),
        "augmentation": Range(low=0.0, high=0.8),
        EPOCHS: Range.around(min(_EPOCHS, max(_FEWEST_EPOCHS, round(shown / train_images))), EPOCHS_FACTOR),
    }


def _of_part(name: str, label: str, part: Part, *, step_cost: float) -> Method:
    """A row that trains this part of every tower; a search takes it where it is named."""
    ranges = functools.partial(_tower_ranges, part=part)
    return replace(FINETUNE, name=name, label=label, ranges=ranges, step_cost=step_cost, part=part)


ZERO_SHOT: Final = Method(
    name="zero_shot",
    label="zero-shot",
    module="vlmsel_auto.tuning.zero_shot",
    trains=Trains.NOTHING,
    ranges=_no_settings,
)
PROBE: Final = Method(
    name="probe",
    label="linear probe",
    module="vlmsel_auto.tuning.probe",
    trains=Trains.HEAD,
    ranges=_no_settings,
)
FINETUNE: Final = Method(
    name="finetune",
    label="fine-tuning",
    module="vlmsel_auto.tuning.finetune",
    trains=Trains.TOWER,
    ranges=_tower_ranges,
    settings=("learning_rate", "weight_decay", "augmentation", EPOCHS),
    # mean of near and far targets, where towers lose 4.9 and gain 2.5 points on their heads:
    # benchmarks/tuning/fits_worth.py
    gain=-0.012,
)
USUAL: Final = (ZERO_SHOT, PROBE, FINETUNE)  # of a search that names none
METHODS: Final = (
    *USUAL,
    _of_part("lora", "LoRA", Part.LOW_RANK, step_cost=3.0),
    _of_part("last_blocks", "last blocks", Part.LAST_BLOCKS, step_cost=1.6),
    _of_part("projection", "projection", Part.PROJECTION, step_cost=1.2),
)
_BY_NAME: Final = {each.name: each for each in METHODS}


def method_of(name: str) -> Method:
    """The row of a method.

    Raises:
        InputError: there is none of that name.
    """
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name.lower(), _BY_NAME, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"method must be one of {', '.join(_BY_NAME)}{hint}, but got {name!r}")
    return _BY_NAME[name]


def methods_of(names: Iterable[str]) -> tuple[Method, ...]:
    """The rows of some methods in the table's order, each once.

    Raises:
        InputError: a name that the table lacks, or no name at all.
    """
    wanted = {method_of(name).name for name in names}
    if not wanted:
        raise InputError(f"at least one method is needed, of {', '.join(_BY_NAME)}, but got none")
    return tuple(each for each in METHODS if each.name in wanted)


def label_of(name: str) -> str:
    """A method as people read it; the name itself where a newer version wrote it."""
    return _BY_NAME[name].label if name in _BY_NAME else name
