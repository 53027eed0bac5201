"""The one file format of a library: safetensors, everything that is not an array as JSON in its metadata.

Metadata (all strings): ``format`` names the format, ``version`` counts its revisions, ``document`` is the JSON text,
``sha256`` covers document and arrays, so that a flipped bit is found. Figures are kept as float64, conductances as
float32, far finer than their sampling error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from vlmsel_auto.cache import Json, write_atomically
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.records import GRIDS, Build, CellFailure, Library, SourceCandidate, SourceTask
from vlmsel_auto.recordjson import decode, encode, parse_json

FORMAT: Final = "vlmsel_auto library"
VERSION: Final = 3

_MAX_BYTES: Final = 2 << 30  # no library is near this; a larger file is something else

Arrays = Mapping[str, NDArray[np.generic]]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Document:
    """The lists of a library, and the lengths of two axes that no list gives."""

    candidates: tuple[SourceCandidate, ...]
    tasks: tuple[SourceTask, ...]
    builds: tuple[Build, ...]
    failures: tuple[CellFailure, ...]
    run_names: tuple[str, ...]
    run_sources: tuple[str, ...]
    signal_names: tuple[str, ...]
    shots: tuple[int, ...]
    evidence_names: tuple[str, ...]
    draws: int
    unlabelled: int


_LISTS: Final = tuple(each.name for each in fields(_Document) if each.name not in {"draws", "unlabelled"})


def save(library: Library, path: Path) -> None:
    """Write a library, whole or not at all.

    Raises:
        LibraryError: the file cannot be written.
    """
    arrays: dict[str, NDArray[np.generic]] = {name: getattr(library, name) for name in GRIDS}
    predicted = np.where(np.isfinite(library.predicted), library.predicted, -1)
    arrays["predicted"] = predicted.astype(np.int16 if predicted.max(initial=0) <= np.iinfo(np.int16).max else np.int32)
    places = library.neighbours + 1  # 0: unknown
    arrays["neighbours"] = places.astype(np.uint8 if places.max(initial=0) <= np.iinfo(np.uint8).max else np.uint16)
    arrays |= {f"activity/{m}": one.astype(np.float32) for m, one in enumerate(library.activity)}
    document = _Document(
        **{name: getattr(library, name) for name in _LISTS},
        draws=library.evidence_draws.shape[2],
        unlabelled=library.predicted.shape[2],
    )
    write_document(path, encode(document), arrays, kind=FORMAT, version=VERSION)


def load(path: Path) -> Library:
    """Read a library.

    Raises:
        LibraryError: the file is missing, unreadable, cut short, damaged, not a library, or of another version.
    """
    return read_document(path, _library, kind=FORMAT, version=VERSION)


def write_document(path: Path, document: Json, arrays: Arrays, *, kind: str, version: int) -> None:
    """Write a JSON document with arrays, whole or not at all.

    Raises:
        LibraryError: the file cannot be written.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    plain = {name: np.ascontiguousarray(one) for name, one in arrays.items()}
    sha256 = _content_digest(text, plain)
    metadata = {"format": kind, "version": str(version), "document": text, "sha256": sha256}
    try:
        write_atomically(path, save_safetensors(plain, metadata=metadata))
    except OSError as error:
        raise LibraryError(
            f"cannot write the {kind}; check folder and permissions ({error}), but got {path}"
        ) from error


def read_document(path: Path, build: Callable[[dict[str, Any], Arrays], T], *, kind: str, version: int) -> T:
    """What ``build`` makes of the document and the arrays that `write_document` wrote.

    Raises:
        LibraryError: the file is missing, unreadable, cut short, damaged, of another kind or version, or ``build``
            cannot use it.
    """
    metadata, data = _read(path)
    if metadata.get("format") != kind:
        raise LibraryError(f"not a file of this kind: its metadata do not say {kind!r}, but got {path}")
    found = metadata.get("version", "")
    if found != str(version):
        newer = found.isdecimal() and int(found) > version
        hint = "written by a newer vlmsel_auto, update it" if newer else "an unknown version"
        raise LibraryError(f"{kind} of version {found!r} is {hint}; this one reads {version}, but got {path}")
    text = metadata.get("document", "")
    try:
        arrays = load_safetensors(data)
        if _content_digest(text, arrays) != metadata.get("sha256"):
            raise LibraryError(
                f"the {kind} is damaged: its content does not match its sha256; bring back a copy or move it away, "
                f"but got {path}"
            )
        return build(parse_json(text), arrays)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, LibraryError):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise LibraryError(f"the {kind} is damaged: {reason}, but got {path}") from error


def _read(path: Path) -> tuple[dict[str, str], bytes]:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise LibraryError(f"not a library: {size} bytes are more than {_MAX_BYTES}, but got {path}")
        data = path.read_bytes()
        with safe_open(path, framework="numpy") as stream:
            return stream.metadata() or {}, data
    except FileNotFoundError:
        raise LibraryError(f"there is no library at this path, but got {path}") from None
    except OSError as error:
        raise LibraryError(f"the library cannot be read ({error}), but got {path}") from error
    except SafetensorError as error:
        raise LibraryError(f"not a safetensors file, or cut short ({error}), but got {path}") from error


def _content_digest(document: str, arrays: Arrays) -> str:
    hasher = hashlib.sha256(document.encode())
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        hasher.update(f"\n{name} {value.dtype.str} {value.shape}\n".encode())
        hasher.update(value.data if value.size else b"")
    return hasher.hexdigest()


def _library(document: dict[str, Any], arrays: Arrays) -> Library:
    told = decode(_Document, document)
    grid = (len(told.candidates), len(told.tasks))
    if "neighbours" not in arrays:  # written before there were any
        arrays = {**arrays, "neighbours": np.zeros((*grid, 0, 0), np.uint8), "neighbours_on": np.full(grid, np.nan)}
    third = {
        "tuned_runs": (len(told.run_names),),
        "signals": (len(told.signal_names),),
        "evidence_draws": (told.draws, len(told.shots), len(told.evidence_names)),
        "predicted": (told.unlabelled,),
        "neighbours": arrays["neighbours"].shape[2:4],
    }
    values: dict[str, Any] = {name: checked(arrays, name, (*grid, *third.get(name, ()))) for name in GRIDS}
    values["predicted"] = np.where(values["predicted"] >= 0, values["predicted"], np.nan)
    values["neighbours"] = values["neighbours"].astype(np.int16) - np.int16(1)
    build = values.pop("build").astype(np.int64)
    if build.size and not -1 <= build.min() <= build.max() < len(told.builds):
        raise LibraryError(f"build must index the {len(told.builds)} builds, but got {build.max()}")
    activity = [
        checked(arrays, f"activity/{m}", (len(told.tasks), len(one.blocks))) for m, one in enumerate(told.candidates)
    ]
    return Library(**{name: getattr(told, name) for name in _LISTS}, build=build, activity=tuple(activity), **values)


def checked(arrays: Arrays, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The array ``name`` as float64.

    Raises:
        KeyError: it is not there.
        LibraryError: it has another shape.
    """
    if arrays[name].shape != shape:
        raise LibraryError(f"{name} must have shape {shape}, but got {arrays[name].shape}")
    return arrays[name].astype(np.float64)
