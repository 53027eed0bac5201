"""Named choices from open_clip's catalogue, by size: ``tiny``, ``laptop``, ``server``, ``all``.

Weights that open_clip offers under two names count once, under the name with the better published figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vlmsel_auto.errors import CandidateError
from vlmsel_auto.models import catalogue
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.models.sources.open_clip_tags import published
from vlmsel_auto.records import Candidate


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """The models of open_clip up to a size; our own choice of sizes."""

    name: str
    max_params: float  # of both towers
    max_flops: float  # of one image through the visual tower
    meaning: str  # for people


PRESETS: Final[Mapping[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset(name="tiny", max_params=160e6, max_flops=math.inf, meaning="up to 160 M parameters"),
        Preset(
            name="laptop", max_params=500e6, max_flops=200e9, meaning="up to 500 M parameters and 200 GFLOPs an image"
        ),
        Preset(name="server", max_params=3e9, max_flops=math.inf, meaning="up to 3 G parameters"),
        Preset(name="all", max_params=math.inf, max_flops=math.inf, meaning="of any size"),
    )
}  # from the smallest to the largest


def find_preset(name: str) -> Preset:
    """Return the preset of that name.

    Raises:
        CandidateError: there is none.
    """
    if name not in PRESETS:
        raise CandidateError(f"a preset is one of {', '.join(PRESETS)}, but got {name!r}")
    return PRESETS[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class Members:
    """The candidates of a preset, the smallest first, and those that a missing package keeps out."""

    candidates: tuple[Candidate, ...]
    lacking: Mapping[str, tuple[str, ...]]  # package -> ids

    @property
    def note(self) -> str:
        """What is left out and how to have it; empty where nothing is."""
        return "; ".join(
            f"{len(ids)} models need the package {package}, which is not installed, and are left out "
            f"(pip install 'vlmsel-auto[hf]')"
            for package, ids in self.lacking.items()
        )


def members(name: str) -> Members:
    """Return what the preset ``name`` holds.

    Raises:
        CandidateError: there is no such preset.
    """
    preset = find_preset(name)
    found: list[Candidate] = []
    lacking: dict[str, tuple[str, ...]] = {}
    for candidate in sorted(_published(), key=lambda each: (each.params or math.inf, each.id)):
        if (candidate.params or math.inf) > preset.max_params or (candidate.flops or math.inf) > preset.max_flops:
            continue
        lacks = facts_of(candidate).lacks
        for package in lacks:
            lacking[package] = (*lacking.get(package, ()), candidate.id)
        if not lacks:
            found.append(candidate)
    return Members(candidates=tuple(found), lacking=lacking)


def _published() -> list[Candidate]:
    named = ((arch, tag) for arch, tags in catalogue.tags().items() for tag, each in tags.items() if not _twin(each))
    return [found for arch, tag in named if (found := published(arch, tag)) is not None]


def _twin(entry: object) -> bool:
    return isinstance(entry, dict) and "same_as" in entry
