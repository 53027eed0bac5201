"""``auto``: candidates that suit this machine; without the hub what lies on its disk, else the mini zoo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.download import is_cached
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.models.hub import cache_dir
from vlmsel_auto.models.limits import Limits, why_not
from vlmsel_auto.models.machine import Machine, screening_embedding_seconds
from vlmsel_auto.models.presets import PRESETS, members
from vlmsel_auto.records import Candidate
from vlmsel_auto.units import byte_count

# our own choices, by hand
_SCREENING_IMAGES: Final = 160  # that a screening embeds
_SCREENING_SECONDS: Final = 120.0  # that it may take
_MEMORY_SHARE: Final = 0.8  # of what is free: images and labels need room too
_ENOUGH: Final = 0.5  # share of the models that a preset adds to the smaller one


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The candidates of ``auto``, and one line for the user: what was chosen and what it means."""

    candidates: tuple[Candidate, ...]
    line: str


def automatic(*, machine: Machine, reachable: bool, offline: bool = False) -> Choice:
    """Choose candidates for a person who named none.

    With the hub: the largest preset of whose models half suit the machine, those of smaller presets not counted, and of
    it all that suit. A model suits where it fits into .8 of the free memory and onto the disk, and 160 images are
    embedded in two minutes. Without the hub: the models of open_clip that lie whole in the hub's cache and fit into
    memory, else the mini zoo.

    Args:
        machine: as measured.
        reachable: whether the hub answers.
        offline: the person forbids to ask it.
    """
    if reachable and not offline:
        sized = _largest(machine)
        if sized is not None:
            named = members(sized)
            fitting = tuple(each for each in named.candidates if _suits(each, machine))
            return Choice(candidates=fitting, line=_line(sized, len(fitting), machine, named.note))
    cause = "offline" if offline else "the hub cannot be reached" if not reachable else "this machine is small"
    found = tuple(each for each in members("all").candidates if is_cached(each) and _fits(each, machine))
    if found:
        return Choice(
            candidates=found,
            line=f"candidates: the {len(found)} models of open_clip that lie in {cache_dir()} ({cause}); "
            f"nothing is downloaded, so better ones may be missed",
        )
    zoo = mini_zoo()
    return Choice(
        candidates=zoo,
        line=f"candidates: the mini zoo, {len(zoo)} small models of at most 64 pixels that ship with the package "
        f"({cause}, and no model that fits lies in {cache_dir()}); on photographs real CLIP models are usually better",
    )


def _largest(machine: Machine) -> str | None:
    """The largest preset that suits the machine; None where not even the smallest does."""
    found, smaller = None, frozenset[str]()
    for name in PRESETS:
        added = [each for each in members(name).candidates if each.id not in smaller]
        if sum(_suits(each, machine) for each in added) < _ENOUGH * len(added):
            break
        found, smaller = name, smaller | {each.id for each in added}
    return found


def _line(preset: str, count: int, machine: Machine, note: str) -> str:
    there_is = f"{machine.device}, {machine.cores} cores, {byte_count(machine.memory_bytes)} of free memory"
    return (
        f"candidates: {count} models of open_clip {PRESETS[preset].meaning} (preset {preset}, chosen for {there_is}); "
        f"a model is downloaded when it is screened{f'; {note}' if note else ''}"
    )


def _fits(candidate: Candidate, machine: Machine) -> bool:
    memory = facts_of(candidate).memory_bytes
    return memory is None or memory <= _MEMORY_SHARE * machine.memory_bytes


def _suits(candidate: Candidate, machine: Machine) -> bool:
    facts = facts_of(candidate)
    seconds = screening_embedding_seconds(facts, images=_SCREENING_IMAGES, machine=machine)
    is_quick = seconds is None or seconds <= _SCREENING_SECONDS
    return is_quick and _fits(candidate, machine) and not why_not(facts, limits=Limits(), machine=machine)
