"""Content-addressed store on disk: named float and integer arrays (safetensors) with a JSON record in their metadata.

The key is a digest of everything that determines the value, so an entry never becomes stale. An entry is one file,
written to a temporary name and renamed: a reader sees the whole entry, the one before it or none, also after a kill and
beside other writers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_safetensors

from vlmsel_auto.errors import InputError

_SEAL: Final = "sha256"
_RECORD: Final = "record"  # in the metadata
_log = logging.getLogger(__name__)

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


def default_cache_dir() -> Path:
    """Folder for derived data: ``$VLMSEL_CACHE`` or the platform's user cache folder.

    Raises:
        InputError: the user has no home.
    """
    from platformdirs import user_cache_path

    return user_path("VLMSEL_CACHE", lambda: user_cache_path("vlmsel_auto"))


def user_path(variable: str, otherwise: Callable[[], Path]) -> Path:
    """What an environment variable says, or else a folder of the platform's in the user's home.

    Raises:
        InputError: the user has no home, as under a number of its own in a container.
    """
    chosen = os.environ.get(variable)
    if chosen:
        return Path(chosen)
    try:
        found = otherwise()
    except RuntimeError:  # of platformdirs
        found = Path("~")
    if not found.is_absolute():  # earlier versions of it leave the ~
        raise InputError(f"no home folder is known: set HOME or {variable}, but got neither")
    return found


def digest(*parts: Json) -> str:
    """Hex SHA-256 of the parts as canonical JSON; floats by their shortest exact representation."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(record: Mapping[str, Json]) -> dict[str, Json]:
    """The record with a digest of itself, so that damage on disk is noticed."""
    plain = dict(record)
    return {**plain, _SEAL: digest(plain)}


def unsealed(value: Json) -> dict[str, Json]:
    """What `sealed` was given.

    Raises:
        ValueError: damaged, or not sealed.
    """
    if not isinstance(value, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - what a damaged file holds, as all that is wrong with one
    record = {name: each for name, each in value.items() if name != _SEAL}
    if value.get(_SEAL) != digest(record):
        raise ValueError("a digest that is not that of the rest")
    return record


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=1)
def _umask() -> int:
    """The process's umask; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader, or a kill, never meets half a file."""
    with atomic_stream(path) as stream:
        stream.write(data)


@contextmanager
def atomic_stream(path: Path) -> Iterator[BinaryIO]:
    """A stream that becomes the file ``path`` when the block ends; nothing is left of a block that raises."""
    with atomic_file(path) as part, part.open("wb") as stream:
        yield stream


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """An empty file that becomes ``path`` when the block ends; nothing is left of a block that raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    try:
        os.fchmod(handle, 0o666 & ~_umask())  # mkstemp's own mode would keep others from reading
        os.close(handle)
        yield Path(name)
        with open(name, "rb+") as written:  # noqa: PTH123 - as everywhere
            os.fsync(written.fileno())
        Path(name).replace(path)
    except BaseException:  # also on KeyboardInterrupt: leave no temporary file behind
        Path(name).unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of entries, each under the digest of what determines it."""

    root: Path
    behind: Path | None = None  # another store's folder, which is read where this one lacks an entry

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.safetensors"

    def get(self, key: str) -> tuple[dict[str, NDArray[np.generic]], dict[str, Json]] | None:
        """Return (arrays, record) of ``key``, or None when it is absent or cannot be read (it is then made again)."""
        found = self._read(key)
        return Store(self.behind).get(key) if found is None and self.behind is not None else found

    def _read(self, key: str) -> tuple[dict[str, NDArray[np.generic]], dict[str, Json]] | None:
        path = self._path(key)
        try:
            with safe_open(path, framework="np") as stream:
                arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
                return arrays, json.loads((stream.metadata() or {})[_RECORD])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            _log.warning("%s is damaged and will be made again: %s", path, error)
            return None

    def put(self, key: str, arrays: Mapping[str, NDArray[np.generic]], record: Mapping[str, Json]) -> None:
        """Keep ``arrays`` and ``record`` under ``key``."""
        plain = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        metadata = {_RECORD: json.dumps(dict(record), sort_keys=True)}
        write_atomically(self._path(key), save_safetensors(plain, metadata=metadata))
