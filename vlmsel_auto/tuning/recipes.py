"""How a tower is fine-tuned by default, by family and size: ``data/recipes.toml`` says it, and who found it."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vlmsel_auto.models.catalogue import package_file
from vlmsel_auto.planning.method import Part
from vlmsel_auto.records import Candidate

LARGE_TOWER: Final = 20_000_000  # parameters of both towers; an unknown size counts as large: rather too gentle


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One row of the file."""

    trains: Part
    rate: float  # of the tower and of its last blocks
    source: str
    family: str = ""  # empty: any
    parameters: int = 0  # of both towers, at least


@functools.cache
def _read() -> tuple[tuple[Recipe, ...], Mapping[Part, float]]:
    """Rows in the file's order, and the rates of parts that go by no tower."""
    read = tomllib.loads((package_file("data") / "recipes.toml").read_text("utf-8"))
    rows = tuple(Recipe(**{**row, "trains": Part(row["trains"])}) for row in read["recipe"])
    return rows, {Part(name): rate for name, rate in read["rates"].items()}


def recipe_of(candidate: Candidate) -> Recipe:
    """The first row that holds for a candidate."""
    size = LARGE_TOWER if candidate.params is None else candidate.params
    return next(each for each in _read()[0] if each.family in ("", candidate.family) and size >= each.parameters)


def rate_of(candidate: Candidate, part: Part) -> float:
    """The learning rate at which this part of a candidate's tower is trained by default."""
    return _read()[1].get(part, recipe_of(candidate).rate)
