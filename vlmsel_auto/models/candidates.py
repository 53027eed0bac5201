"""Candidates by name: the mini zoo, presets and open_clip's catalogue, hub repositories, own folders.

A `Candidate` is metadata; nothing here reads weights or imports torch.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from vlmsel_auto.errors import CandidateError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.models import presets
from vlmsel_auto.models.sources import local_folders, timm_towers
from vlmsel_auto.models.sources.mini_zoo import mini_zoo
from vlmsel_auto.models.sources.source import Unusable
from vlmsel_auto.models.sources.table import SOURCES
from vlmsel_auto.records import Candidate
from vlmsel_auto.tasks.file_names import is_folder

__all__ = ["Unusable", "mini_zoo", "resolve", "resolve_usable"]

_Found: TypeAlias = Candidate | Unusable | Notice  # a notice says what a preset leaves out


def resolve(names: str | Sequence[str] | Path, *, sink: Sink = discard) -> tuple[Candidate, ...]:
    """Turn names into candidates, in the order given.

    Args:
        names: one name, a comma-separated list, a sequence of either, or the path of a folder. A name is ``mini-zoo``
            (all of it), the folder name of a member of it, a preset (``tiny``, ``laptop``, ``server``, ``all``),
            ``ARCH/TAG`` of open_clip, ``hf-hub:ORG/REPOSITORY``, ``timm:NAME``, ``local-dir:FOLDER``, or a folder.
        sink: takes a notice for each name that was given twice, and of what a preset leaves out.

    Raises:
        CandidateError: a name is unknown (the message suggests the closest), a folder cannot be used, or there are no
            names.
    """
    found, unusable = _collected(names, sink=sink)
    if unusable:
        raise CandidateError(unusable[0].reason)
    return found


def resolve_usable(
    names: str | Sequence[str] | Path, *, sink: Sink = discard
) -> tuple[tuple[Candidate, ...], tuple[Unusable, ...]]:
    """As `resolve`, but a folder that exists and cannot be used (no weights, say) stops nothing while others can.

    Raises:
        CandidateError: as for `resolve`, or no candidate is left.
    """
    found, unusable = _collected(names, sink=sink)
    if not found:
        raise CandidateError(unusable[0].reason)
    return found, unusable


def _collected(names: str | Sequence[str] | Path, *, sink: Sink) -> tuple[tuple[Candidate, ...], tuple[Unusable, ...]]:
    found: dict[str, Candidate] = {}
    unusable: dict[str, Unusable] = {}
    for candidate in _expand(names):
        if isinstance(candidate, Notice):
            sink(candidate)
        elif isinstance(candidate, Unusable):
            unusable[candidate.id] = candidate
        elif candidate.id in found:
            sink(Notice(text=f"Candidate {candidate.id} was named more than once; it is used once."))
        else:
            found[candidate.id] = candidate
    if not found and not unusable:
        raise CandidateError(f"At least one candidate is needed, for example 'mini-zoo', but got {names!r}")
    return tuple(found.values()), tuple(unusable.values())


def _expand(names: str | Sequence[str] | Path) -> Iterable[_Found]:
    match names:
        case Path():
            yield _in_folder(names)
        case str():
            whole = names.strip()
            parts = [whole] if local_folders.is_whole(whole) else whole.split(",")
            for part in filter(None, (part.strip() for part in parts)):
                yield from _from_name(part)
        case _:
            for name in names:
                yield from _expand(name)


def _from_name(name: str) -> Iterable[_Found]:
    if name in _LISTS:
        return _LISTS[name]()
    for source in SOURCES.values():
        found = source.resolve(name)
        if found is not None:
            return (found,)
    if is_folder(Path(name)):
        return (_in_folder(Path(name)),)
    raise CandidateError(
        f"Unknown candidate{_suggest(name)}; `vlmsel-auto zoo` lists the mini zoo, `vlmsel-auto zoo -c all` the "
        f"models of open_clip, but got {name!r}"
    )


def _preset(name: str) -> tuple[Candidate | Notice, ...]:
    members = presets.members(name)
    return (*members.candidates, *((Notice(text=f"preset {name}: {members.note}"),) if members.note else ()))


_LISTS: Mapping[str, Callable[[], Iterable[_Found]]] = {
    "mini-zoo": mini_zoo,
    **{name: functools.partial(_preset, name) for name in presets.PRESETS},
}


def _in_folder(path: Path) -> Candidate | Unusable:
    return timm_towers.at(path) if timm_towers.is_tower(local_folders.resolved(path)) else local_folders.at(path)


def _suggest(name: str) -> str:
    names = [known for source in SOURCES.values() for known in source.names()]
    lower = {known.lower(): known for known in (*names, *_LISTS)}
    close = [lower[key] for key in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    close += [each for each in names if each.startswith(f"{name}/")][:3]  # an architecture without its tag
    return f", did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""
