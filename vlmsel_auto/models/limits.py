"""What a person can afford: limits on candidates, and which one excludes whom.

What is not known passes a limit of size or time, and `unknowns` says so; an unknown licence does not pass, since no one
allowed its use.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Final

from vlmsel_auto.errors import CandidateError, InputError
from vlmsel_auto.models.facts import Facts
from vlmsel_auto.models.machine import Machine, embedding_seconds
from vlmsel_auto.units import byte_count, milliseconds, parse_bytes, parse_count, parse_latency, thousands

_FIXED: Final = 1e3  # excess of what no other limit makes up for
_SIDES: Final = re.compile(r"(\d*)(-?)(\d*)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a candidate may take; None, or no licence: no limit."""

    max_params: int | None = None  # of both towers
    max_download_bytes: int | None = None  # of one candidate
    max_memory_bytes: int | None = None  # to load it and embed images in float32
    max_latency: float | None = None  # seconds of one image, embedded among many on this machine
    image_size: tuple[float, float] | None = None  # least and most side of the input, pixels
    licences: tuple[str, ...] = ()  # names that are allowed, in any case

    def __str__(self) -> str:
        """Those that are set, as one text."""
        chosen = {each.name: getattr(self, each.name) for each in fields(self)}
        return ", ".join(f"{name} {value}" for name, value in chosen.items() if value) or "none"


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, kw_only=True, slots=True)
class Excluded:
    """A candidate that a limit keeps out."""

    candidate: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Found:
    """What one limit says of a candidate."""

    limit: str
    reason: str = ""  # why it does not fit
    excess: float = 0.0  # how many times too large the value is, as a logarithm
    unknown: str = ""  # a note where the value is not known


def read_limits(
    *,
    max_params: str | None = None,
    max_download: str | None = None,
    max_memory: str | None = None,
    max_latency: str | None = None,
    image_size: str | None = None,
    licence: str | None = None,
) -> Limits:
    """Read limits as the command line takes them: ``150M``, ``2GB``, ``40ms``, ``224-384``, ``MIT,Apache-2.0``.

    Raises:
        InputError: a text cannot be read.
    """
    return Limits(
        max_params=None if max_params is None else parse_count(max_params),
        max_download_bytes=None if max_download is None else parse_bytes(max_download),
        max_memory_bytes=None if max_memory is None else parse_bytes(max_memory),
        max_latency=None if max_latency is None else parse_latency(max_latency),
        image_size=None if image_size is None else _read_sides(image_size),
        licences=tuple(filter(None, (each.strip() for each in (licence or "").split(",")))),
    )


def why_not(facts: Facts, *, limits: Limits, machine: Machine | None = None) -> str:
    """Say which limit a candidate exceeds, and by what value; an empty text when it fits.

    With a ``machine`` its free memory and disk are limits too; without one a limit of latency is not applied.
    """
    return "; ".join(each.reason for each in _judged(facts, limits, machine) if each.reason)


def unknowns(facts: Facts, *, limits: Limits, machine: Machine | None = None) -> tuple[str, ...]:
    """Notes on limits that a candidate passed because its value is not known."""
    return tuple(each.unknown for each in _judged(facts, limits, machine) if each.unknown)


def within(
    candidates: Sequence[Facts], *, limits: Limits, machine: Machine | None = None
) -> tuple[tuple[Facts, ...], tuple[Excluded, ...]]:
    """Divide candidates into those that fit and those that do not, both in the order given.

    Raises:
        CandidateError: none fits. The message says which limit excluded how many, and which candidate is nearest.
    """
    kept, excluded = [], []
    for facts in candidates:
        reason = why_not(facts, limits=limits, machine=machine)
        if reason:
            excluded.append(Excluded(candidate=facts.candidate, reason=reason))
        else:
            kept.append(facts)
    if candidates and not kept:
        raise CandidateError(_nothing_left(candidates, limits, machine))
    return tuple(kept), tuple(excluded)


def _judged(facts: Facts, limits: Limits, machine: Machine | None) -> Iterator[_Found]:
    memory, download = facts.memory_bytes, facts.download_bytes
    yield _at_most("--max-params", limits.max_params, "parameters", facts.params, thousands)
    yield _at_most("--max-download", limits.max_download_bytes, "to download", download, byte_count)
    yield _at_most("--max-memory", limits.max_memory_bytes, "of memory", memory, byte_count)
    if machine is not None:
        seconds = embedding_seconds(facts, images=1, machine=machine)
        yield _at_most("--max-latency", limits.max_latency, "an image", seconds, milliseconds)
        yield _at_most("this machine's free memory", machine.memory_bytes, "of memory", memory, byte_count)
        yield _at_most("the free disk of the hub's cache", machine.disk_bytes, "to download", download, byte_count)
    size, sides = facts.image_size, limits.image_size
    if sides is not None and not sides[0] <= size <= sides[1]:
        reason = f"images of {size} pixels are not within --image-size {_show_sides(sides)}"
        yield _Found("--image-size", reason, excess=_FIXED)
    if limits.licences and facts.licence.lower() not in {each.lower() for each in limits.licences}:
        reason = f"licence {facts.licence} is not among --licence {','.join(limits.licences)}"
        yield _Found("--licence", reason, excess=_FIXED)


def _at_most(limit: str, most: float | None, what: str, value: float | None, show: Callable[[float], str]) -> _Found:
    if value is None and most is not None:
        return _Found(limit, unknown=f"unknown how much {what}, so {limit} does not count")
    if value is None or most is None or value <= most:
        return _Found(limit)
    excess = math.log(value / most) if most > 0 else math.inf
    return _Found(limit, f"{show(value)} {what} exceed {limit} {show(most)}", excess=excess)


def _nothing_left(candidates: Sequence[Facts], limits: Limits, machine: Machine | None) -> str:
    found = {facts: tuple(_judged(facts, limits, machine)) for facts in candidates}
    counts = Counter(each.limit for judged in found.values() for each in judged if each.reason)
    told = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    nearest = min(found, key=lambda facts: sum(each.excess for each in found[facts]))
    return (
        f"The limits exclude every one of {len(candidates)} candidates ({told}): raise one, or name other candidates; "
        f"the nearest is {nearest.candidate}, but got {why_not(nearest, limits=limits, machine=machine)}"
    )


def _read_sides(text: str) -> tuple[float, float]:
    found = _SIDES.fullmatch(text.strip())
    least, dash, most = found.groups() if found else ("", "", "")
    if not (least or most) or (most and not dash):
        raise InputError(f"an image size is in pixels, like 224, 224-384, 336- or -256, but got {text!r}")
    low = float(least or 0)
    high = float(most) if most else math.inf if dash else low
    if low > high:
        raise InputError(f"an image size goes from the least to the most, like 224-384, but got {text!r}")
    return low, high


def _show_sides(sides: tuple[float, float]) -> str:
    low, high = sides
    if low == high:
        return f"{low:.0f}"
    return f"{f'{low:.0f}' if low else ''}-{'' if math.isinf(high) else f'{high:.0f}'}"
