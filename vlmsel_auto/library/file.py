"""The one file format of a library: safetensors, everything that is not an array as JSON in its metadata.

Metadata (all strings): ``format`` names the format, ``version`` counts its revisions, ``library`` is the JSON document,
``sha256`` covers document and arrays, so that a flipped bit is found. Accuracies and times are kept as float64,
conductances as float32, embeddings as float16: far finer than their sampling error. Files of version 1, which lack
the classes that candidates name, are read too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from vlmsel_auto.cache import Json, write_atomically
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library.records import AXES, Build, CellFailure, Library, SourceCandidate, SourceTask

__all__ = ["FORMAT", "VERSION", "load", "save"]

FORMAT: Final = "vlmsel_auto library"
VERSION: Final = 2

_MAX_BYTES: Final = 2 << 30  # no library is near this; a larger file is something else
_EMBEDDINGS: Final = frozenset({"class_text", "class_image", "image_sd"})
_CONDUCTANCES: Final = frozenset({"activity", "norm_activity", "signature", "absolute"})
_READABLE: Final = ("1", str(VERSION))

Arrays = dict[str, NDArray[np.generic]]


def save(library: Library, path: Path) -> None:
    """Write a library, whole or not at all.

    Raises:
        LibraryError: the file cannot be written.
    """
    arrays = _arrays(library)
    document = json.dumps(_document(library), sort_keys=True, separators=(",", ":"))
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "library": document,
        "sha256": _content_digest(document, arrays),
    }
    try:
        write_atomically(path, save_safetensors(arrays, metadata=metadata))
    except OSError as error:
        raise LibraryError(
            f"cannot write the library; check folder and permissions ({error}), but got {path}"
        ) from error


def load(path: Path) -> Library:
    """Read a library.

    Raises:
        LibraryError: the file is missing, unreadable, cut short, damaged, not a library, or of a newer version.
    """
    metadata, data = _read(path)
    if metadata.get("format") != FORMAT:
        raise LibraryError(f"not a library of vlmsel_auto: its metadata name no such format, but got {path}")
    version = metadata.get("version", "")
    if version not in _READABLE:
        newer = version.isdecimal() and int(version) > VERSION
        hint = "written by a newer vlmsel_auto, update it" if newer else "an unknown version"
        raise LibraryError(f"library format {version!r} is {hint}; this one reads {VERSION}, but got {path}")
    document = metadata.get("library", "")
    try:
        arrays = load_safetensors(data)
        if _content_digest(document, arrays) != metadata.get("sha256"):
            raise LibraryError(f"the library is damaged: its content does not match its sha256, but got {path}")
        return _library(*_upgraded(json.loads(document), arrays, version=version))
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, LibraryError):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise LibraryError(f"the library is damaged: {reason}, but got {path}") from error


def _upgraded(document: dict[str, Any], arrays: Arrays, *, version: str) -> tuple[dict[str, Any], Arrays]:
    """Document and arrays in the present version."""
    if version != "1":
        return document, arrays
    grid = (len(document["candidates"]), len(document["tasks"]))
    return {"unlabelled": 0, **document}, {
        **arrays,
        "predicted": np.empty((*grid, 0), dtype=np.int32),
        "predicted_on": np.full(grid, np.nan),
    }


def _read(path: Path) -> tuple[dict[str, str], bytes]:
    """Metadata and bytes of a safetensors file."""
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


def _content_digest(document: str, arrays: Mapping[str, NDArray[np.generic]]) -> str:
    hasher = hashlib.sha256(document.encode())
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        hasher.update(f"\n{name} {value.dtype.str} {value.shape}\n".encode())
        hasher.update(value.data if value.size else b"")
    return hasher.hexdigest()


def _arrays(library: Library) -> Arrays:
    """Named arrays; those of blocks lie side by side, split by the widths in the document."""
    found: Arrays = {}
    for name, axes in AXES.items():
        kind = np.float32 if name in _CONDUCTANCES else np.float16 if name in _EMBEDDINGS else np.float64
        value = getattr(library, name)
        if name == "build":
            found[name] = np.ascontiguousarray(value, dtype=np.int64)
        elif name == "predicted":
            found[name] = np.where(np.isfinite(value), value, -1).astype(np.int32)
        elif axes.startswith("*"):
            for m, one in enumerate(value):
                if isinstance(one, tuple):
                    one = np.concatenate(one, axis=1) if one else np.empty((len(library.tasks), 0))  # noqa: PLW2901 - same thing, joined
                found[f"{name}/{m}"] = np.ascontiguousarray(one, dtype=kind)
        else:
            found[name] = np.ascontiguousarray(value, dtype=kind)
    return found


def _document(library: Library) -> Json:
    return {
        "candidates": [asdict(one) for one in library.candidates],
        "tasks": [asdict(one) for one in library.tasks],
        "builds": [asdict(one) for one in library.builds],
        "failures": [asdict(one) for one in library.failures],
        "run_names": list(library.run_names),
        "run_sources": list(library.run_sources),
        "signal_names": list(library.signal_names),
        "draws": library.evidence_draws.shape[2],
        "shots": list(library.shots),
        "evidence_names": list(library.evidence_names),
        "unlabelled": library.predicted.shape[2],
    }


def _library(document: Mapping[str, Any], arrays: Arrays) -> Library:
    """The checked library of a decoded document and its arrays.

    Raises:
        LibraryError: shapes or ranges are wrong.
        KeyError, ValueError, TypeError, AttributeError: the document is not of this shape.
    """
    candidates = tuple(
        SourceCandidate(**{**one, "blocks": tuple(one["blocks"]), "widths": tuple(one["widths"])})
        for one in document["candidates"]
    )
    tasks = tuple(SourceTask(**{**one, "classes": tuple(one["classes"])}) for one in document["tasks"])
    builds = tuple(
        Build(**{**one, "settings": tuple((str(key), str(value)) for key, value in one["settings"])})
        for one in document["builds"]
    )
    sizes = {
        "m": len(candidates),
        "s": len(tasks),
        "g": sum(task.n_classes for task in tasks),
        "r": len(document["run_names"]),
        "q": len(document["signal_names"]),
        "w": int(document["draws"]),
        "k": len(document["shots"]),
        "e": len(document["evidence_names"]),
        "u": int(document["unlabelled"]),
    }
    values = {name: _value(name, axes, arrays, sizes, candidates) for name, axes in AXES.items()}
    if sizes["m"] * sizes["s"] and not -1 <= values["build"].min() <= values["build"].max() < len(builds):
        raise LibraryError(f"build must index the {len(builds)} builds, but got {values['build'].max()}")
    return Library(
        candidates=candidates,
        tasks=tasks,
        builds=builds,
        failures=tuple(CellFailure(**one) for one in document["failures"]),
        run_names=tuple(map(str, document["run_names"])),
        run_sources=tuple(map(str, document["run_sources"])),
        signal_names=tuple(map(str, document["signal_names"])),
        shots=tuple(map(int, document["shots"])),
        evidence_names=tuple(map(str, document["evidence_names"])),
        **values,
    )


def _value(
    name: str, axes: str, arrays: Arrays, sizes: Mapping[str, int], candidates: tuple[SourceCandidate, ...]
) -> Any:
    """One field of the library from the stored arrays."""
    if not axes.startswith("*"):
        stored = _checked(arrays[name], name, tuple(sizes[axis] for axis in axes))
        if name == "predicted":
            return np.where(stored >= 0, stored, np.nan)
        return stored.astype(np.int64) if name == "build" else stored
    found: list[Any] = []
    for m, candidate in enumerate(candidates):
        key = f"{name}/{m}"
        if axes.startswith("**"):
            joined = _checked(arrays[key], key, (sizes["s"], sum(candidate.widths)))
            found.append(tuple(np.split(joined, np.cumsum(candidate.widths)[:-1], axis=1)) if candidate.widths else ())
        else:
            last = candidate.embed_dim if axes.endswith("d") else len(candidate.blocks)
            found.append(_checked(arrays[key], key, (sizes[axes[1]], last)))
    return tuple(found)


def _checked(stored: NDArray[np.generic], name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if stored.shape != shape:
        raise LibraryError(f"{name} must have shape {shape}, but got {stored.shape}")
    return stored.astype(np.float64)
