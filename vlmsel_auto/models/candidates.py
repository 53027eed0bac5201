"""Candidates by name: the mini zoo, presets and open_clip's catalogue, hub repositories, own folders, TOML lists.

A `Candidate` is metadata; nothing here reads weights or imports torch.
"""

from __future__ import annotations

import difflib
import functools
import tomllib
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
        names: one name, a comma-separated list, a sequence of either, or a path. A name is ``mini-zoo`` (all of it),
            the folder name of a member of it, a preset (``tiny``, ``laptop``, ``server``, ``all``), ``ARCH/TAG`` of
            open_clip, ``hf-hub:ORG/REPOSITORY``, ``timm:NAME``, ``local-dir:FOLDER``, a folder, or a ``.toml`` file
            with ``candidates = [names]`` and ``[[candidate]]`` tables of ``path`` (and ``id``), which are relative to
            the file.
        sink: takes a notice for each name that was given twice, and of what a preset leaves out.

    Raises:
        CandidateError: a name is unknown (the message suggests the closest), a folder or file cannot be used, or there
            are no names.
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
    for candidate in _expand(names, base=Path(), seen=()):
        if isinstance(candidate, Notice):
            sink(candidate)
            continue
        if isinstance(candidate, Unusable):
            unusable[candidate.id] = candidate
            continue
        known = found.get(candidate.id)
        if known is None:
            found[candidate.id] = candidate
        elif known == candidate:
            sink(Notice(text=f"Candidate {candidate.id} was named more than once; it is used once."))
        else:
            raise CandidateError(
                f"Two candidates share the id {candidate.id!r}: give one of them another id, "
                f"but got {str(known.path)!r} and {str(candidate.path)!r}"
            )
    if not found and not unusable:
        raise CandidateError(f"At least one candidate is needed, for example 'mini-zoo', but got {names!r}")
    return tuple(found.values()), tuple(unusable.values())


def _expand(names: str | Sequence[str] | Path, *, base: Path, seen: tuple[Path, ...]) -> Iterable[_Found]:
    match names:
        case Path():
            yield from _from_path(base / names, seen=seen)
        case str():
            whole = names.strip()
            parts = [whole] if local_folders.is_whole(whole, base) else whole.split(",")
            for part in filter(None, (part.strip() for part in parts)):
                yield from _from_name(part, base=base, seen=seen)
        case _:
            for name in names:
                yield from _expand(name, base=base, seen=seen)


def _from_name(name: str, *, base: Path, seen: tuple[Path, ...]) -> Iterable[_Found]:
    if name in _LISTS:
        return _LISTS[name]()
    for source in SOURCES.values():
        found = source.resolve(name, base)
        if found is not None:
            return (found,)
    path = base / name
    if name.endswith(".toml") or is_folder(path):
        return _from_path(path, seen=seen)
    raise CandidateError(
        f"Unknown candidate{_suggest(name)}; `vlmsel-auto zoo` lists the mini zoo, `vlmsel-auto zoo --preset all` the "
        f"models of open_clip, but got {name!r}"
    )


def _preset(name: str) -> tuple[Candidate | Notice, ...]:
    members = presets.members(name)
    return (*members.candidates, *((Notice(text=f"preset {name}: {members.note}"),) if members.note else ()))


_LISTS: Mapping[str, Callable[[], Iterable[_Found]]] = {
    "mini-zoo": mini_zoo,
    **{name: functools.partial(_preset, name) for name in presets.PRESETS},
}


def _from_path(path: Path, *, seen: tuple[Path, ...]) -> Iterable[_Found]:
    if path.suffix == ".toml" and not is_folder(path):
        return _from_toml(path, seen=seen)
    return (_in_folder(path),)


def _in_folder(path: Path, *, name: str | None = None) -> Candidate | Unusable:
    at = timm_towers.at if timm_towers.is_tower(local_folders.resolved(path)) else local_folders.at
    return at(path, name=name)


def _from_toml(path: Path, *, seen: tuple[Path, ...]) -> Iterable[_Found]:
    file = local_folders.resolved(path)
    if file in seen:
        raise CandidateError(f"The candidates file names itself, maybe through another, but got {str(path)!r}")
    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise CandidateError(f"Cannot read the candidates file ({error.strerror}), but got {str(path)!r}") from error
    except (ValueError, RecursionError) as error:  # numbers may be too long, tables too deep
        raise CandidateError(f"The candidates file is not TOML ({error}), but got {str(path)!r}") from error
    unknown = sorted(set(data) - {"candidates", "candidate"})
    names, tables = data.get("candidates", []), data.get("candidate", [])
    if unknown or not _is_list_of(names, str) or not _is_list_of(tables, dict) or not (names or tables):
        raise CandidateError(
            f'The candidates file {str(path)!r} must hold candidates = ["name", ...] or [[candidate]] tables and '
            f"nothing else, but got {sorted(data)!r}"
        )
    inner = (*seen, file)
    yield from _expand(names, base=path.parent, seen=inner)
    for table in tables:
        yield _from_table(table, file=path)


def _from_table(table: Mapping[str, object], *, file: Path) -> Candidate | Unusable:
    texts = {key: value for key, value in table.items() if isinstance(value, str) and value}
    match sorted(texts) if len(texts) == len(table) else []:
        case ["path"]:
            return _in_folder(file.parent / texts["path"])
        case ["id", "path"]:
            path, name = file.parent / texts["path"], texts["id"]
            if name in {candidate.id for candidate in mini_zoo()}:
                raise CandidateError(
                    f"A folder cannot take the id of a mini-zoo member, but got {name!r} for {str(path)!r}"
                )
            return _in_folder(path, name=name)
        case _:
            raise CandidateError(
                f"A [[candidate]] of {str(file)!r} needs path (and id) as texts, but got {dict(table)!r}"
            )


def _suggest(name: str) -> str:
    names = [known for source in SOURCES.values() for known in source.names()]
    lower = {known.lower(): known for known in (*names, *_LISTS)}
    close = [lower[key] for key in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    close += [each for each in names if each.startswith(f"{name}/")][:3]  # an architecture without its tag
    return f", did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)
