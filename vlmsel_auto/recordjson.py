"""Frozen records to JSON and back: what is read has the declared types, or an InputError says where it has not.

Arrays are refused: they belong in safetensors. A float that is not finite is written as null and read back as NaN,
because JSON has no other number for it.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import InputError

R = TypeVar("R")


def encode(value: object) -> Json:
    """``value`` as JSON: dataclasses, mappings, tuples, paths and plain values.

    Raises:
        TypeError: a value that has no JSON form, such as an array.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: encode(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(inner) for inner in value]
    if isinstance(value, (Path, enum.StrEnum)):
        return str(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):  # numpy's float64 is a float too: float() makes it a plain one
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"no JSON form, but got {type(value).__name__}")


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says, of any shape.

    Raises:
        InputError: it is not JSON in UTF-8, nested deeper than Python reads, or holds a number that is not finite.
    """
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"JSON in UTF-8 is needed, but got {error}") from error


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"no finite number: {text}")
    return value


def decode(kind: type[R], value: Json) -> R:
    """JSON ``value`` as a record of type ``kind``. Unknown keys are ignored; missing ones need a default.

    Raises:
        InputError: a field is missing or has another type; the message names its place.
    """
    return cast("R", _decode(kind, value, kind.__name__))


def _decode(kind: Any, value: Json, place: str) -> object:
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_record(kind, value, place)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(kind), value, place)
    if origin is Literal:
        if value in get_args(kind):
            return value
        raise InputError(f"{place}: expected one of {', '.join(map(repr, get_args(kind)))}, but got {value!r}")
    if origin is tuple and isinstance(value, list):
        inner = get_args(kind)[0]
        return tuple(_decode(inner, item, f"{place}[{index}]") for index, item in enumerate(value))
    if origin in (Mapping, dict, typing.Mapping) and isinstance(value, dict):
        inner = get_args(kind)[1]
        return {key: _decode(inner, item, f"{place}.{key}") for key, item in value.items()}
    if origin is None:
        return _decode_plain(kind, value, place)
    raise InputError(f"{place}: expected {kind}, but got {type(value).__name__}")


def _decode_record(kind: type, value: Json, place: str) -> object:
    if not isinstance(value, dict):
        raise InputError(f"{place}: expected an object, but got {type(value).__name__}")
    hints = get_type_hints(kind)
    given: dict[str, object] = {}
    for item in dataclasses.fields(kind):
        if item.name in value:
            given[item.name] = _decode(hints[item.name], value[item.name], f"{place}.{item.name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise InputError(f"{place}.{item.name}: this field is missing, but got only {', '.join(sorted(value))}")
    return kind(**given)


def _decode_union(kinds: tuple[Any, ...], value: Json, place: str) -> object:
    if value is None and type(None) in kinds:
        return None
    remaining = [kind for kind in kinds if kind is not type(None)]
    for kind in remaining[:-1]:
        try:
            return _decode(kind, value, place)
        except InputError:
            continue
    return _decode(remaining[-1], value, place)


def _decode_plain(kind: Any, value: Json, place: str) -> object:
    if kind is object:
        return value
    if kind is float and (value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))):
        try:
            return math.nan if value is None else float(value)
        except OverflowError:
            raise InputError(f"{place}: expected a number below 1.8e308, but got a larger one") from None
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        if value in list(kind):
            return kind(str(value))
        raise InputError(f"{place}: expected one of {', '.join(repr(each.value) for each in kind)}, but got {value!r}")
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise InputError(f"{place}: expected {kind.__name__}, but got {value!r}")
