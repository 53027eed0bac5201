"""Counts, bytes, times and shares as short text for people, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from vlmsel_auto.errors import InputError
from vlmsel_auto.records import Interval, Metric

DASH: Final = "-"  # what is not known

_COUNTS: Final[Mapping[str, float]] = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
_BYTES: Final[Mapping[str, float]] = {
    **{unit: factor for unit, factor in _COUNTS.items() if unit != "B"},
    **{f"{unit}B": factor for unit, factor in _COUNTS.items() if unit != "B"},
    **{f"{unit}IB": 1024.0**power for power, unit in enumerate("KMGT", start=1)},
}
_SHARES: Final[Mapping[str, float]] = {"": 1.0, "%": 0.01}
_TIMES: Final[Mapping[str, float]] = {"": 1e-3, "MS": 1e-3, "S": 1.0}
_DURATIONS: Final[Mapping[str, float]] = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)", re.ASCII)
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([A-Z]*|%)", re.ASCII)


def thousands(value: float | None) -> str:
    """A count as ``830``, ``1.9 M`` or ``4.4 G``; unknown as a dash."""
    if value is None or not math.isfinite(value):
        return DASH
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:#.3g}".rstrip(".") + f" {unit}"
    return f"{value:.3g}"


def byte_count(value: float | None) -> str:
    """Bytes as ``605 MB`` or ``1.71 GB``; unknown as a dash."""
    text = thousands(value)
    return text if text == DASH else f"{text}B" if " " in text else f"{text} B"


def milliseconds(seconds: float | None) -> str:
    """Seconds as ``0.42 ms``, ``4.2 ms`` or ``420 ms``."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    value = 1e3 * seconds
    return f"{value:.{2 if value < 1 else 1 if value < 10 else 0}f} ms"  # noqa: PLR2004 - two figures that count


def percent(value: float | None, *, digits: int = 1) -> str:
    """A share in [0, 1] as ``93.4 %``; unknown as a dash."""
    return DASH if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def share_interval(found: Interval | None) -> str:
    """``85.0 % to 97.5 %``; unknown as a dash."""
    return DASH if found is None else f"{percent(found.low)} to {percent(found.high)}"


def metric_text(metric: Metric) -> str:
    """A metric as people read it: ``balanced accuracy``, ``macro F1``."""
    return "macro F1" if metric == "macro_f1" else metric.replace("_", " ")


def parse_count(text: str) -> int:
    """The count that ``150M``, ``1.5G`` (also ``1.5B``) or ``20000`` says.

    Raises:
        InputError: the text is none of these, or not above zero.
    """
    return round(_parsed(text, _COUNTS, what="a count is a number or like 150M, 1.5G"))


def parse_bytes(text: str) -> int:
    """The bytes that ``2GB``, ``500M``, ``1.5 GiB`` or ``20000`` says; GB are powers of 1000, GiB of 1024.

    Raises:
        InputError: the text is none of these, or not above zero.
    """
    return round(_parsed(text, _BYTES, what="a size is in bytes or like 500MB, 2GB, 1.5GiB"))


def parse_latency(text: str) -> float:
    """The seconds that ``40``, ``40ms`` or ``0.5s`` says; a bare number is in milliseconds.

    Raises:
        InputError: the text is none of these, or not above zero.
    """
    return _parsed(text, _TIMES, what="a latency is in milliseconds or like 40ms, 0.5s")


def parse_share(text: str) -> float:
    """The share that ``95%``, ``95 %`` or ``.95`` says.

    Raises:
        InputError: the text is none of these, or not above zero.
    """
    return _parsed(text, _SHARES, what="a share is like 95% or .95")


def parse_duration(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``10m``, ``1h30m`` or ``1.5h``.

    Raises:
        InputError: the text is none of these, or not above zero.
    """
    compact = text.strip().lower()
    try:
        seconds = float(compact)
    except ValueError:
        parts = _DURATION.findall(compact)
        whole = _DURATION.sub("", compact).strip() == "" and bool(parts)
        seconds = sum(float(count) * _DURATIONS[unit] for count, unit in parts) if whole else math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"a time is seconds or like 90s, 10m, 1h30m, and above zero, but got {text!r}")
    return seconds


def _parsed(text: str, units: Mapping[str, float], *, what: str) -> float:
    found = _AMOUNT.fullmatch(text.strip().upper())
    if found is None or found[2] not in units or float(found[1]) == 0:
        raise InputError(f"{what}, and above zero, but got {text!r}")
    return float(found[1]) * units[found[2]]
