"""One file through one or more connections: resumed where it broke off, ended when asked, checked by its SHA-256.

Nothing here knows a hub: the caller opens connections and says how many bytes there are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

from vlmsel_auto.cache import file_digest

Chunks: TypeAlias = tuple[int, Iterator[bytes]]  # offset of the first byte, and the bytes from there on
Open: TypeAlias = Callable[[int], AbstractContextManager[Chunks]]  # connects for the bytes from an offset on

_CONNECTIONS = 3  # that may bring less than _WORTH each before a file is given up
_WORTH = 1 << 20  # bytes
_PAUSE = 0.5  # seconds before the next connection


class BrokenOff(Exception):
    """A connection failed or ended early; another one may bring the rest."""


class Stopped(Exception):
    """The transfer was asked to end; what came so far is on disk."""


class Damaged(Exception):
    """The bytes are not those that were promised; they were deleted."""


def incomplete_bytes(path: Path) -> int:
    """Bytes that a broken-off transfer of ``path`` left."""
    partial = _incomplete(path)
    return partial.stat().st_size if partial.exists() else 0


def receive(
    path: Path,
    *,
    open_at: Open,
    size: int | None,
    sha256: str | None,
    arrived: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Bring the file to ``path``; of a transfer that broke off only the rest is asked for.

    Args:
        path: appears when the file is whole; until then ``path.incomplete`` grows.
        open_at: opens a connection for the bytes from an offset on; raises `BrokenOff` when another may do better.
        size: bytes of the whole file; None: it ends where the connection ends.
        sha256: hex digest of the whole file; None: only the size is checked.
        arrived: called with the number of bytes that are on disk, often.
        stop: once set, the transfer ends at the next bytes.

    Raises:
        Stopped: ``stop`` was set.
        Damaged: the size or the digest does not fit.
        BrokenOff: three connections brought less than a mebibyte each.
        OSError: the disk is full or read-only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    poor = 0
    while size is None or not _incomplete(path).exists() or incomplete_bytes(path) < size:
        before = incomplete_bytes(path)
        try:
            _append(path, open_at=open_at, arrived=arrived, stop=stop)
            if size is None:
                break
            broken = BrokenOff("the connection ended early")
        except BrokenOff as error:
            broken = error
        if size is None or incomplete_bytes(path) < size:
            poor += incomplete_bytes(path) - before < _WORTH
            if poor == _CONNECTIONS:
                of = "" if size is None else f" of {size:,}"
                raise BrokenOff(f"{broken} after {incomplete_bytes(path):,}{of} bytes") from broken
            if stop.wait(_PAUSE):
                raise Stopped
    _check(_incomplete(path), size=size, sha256=sha256)
    _incomplete(path).replace(path)


def _incomplete(path: Path) -> Path:
    return path.with_name(f"{path.name}.incomplete")


def _append(path: Path, *, open_at: Open, arrived: Callable[[int], None], stop: threading.Event) -> None:
    have = incomplete_bytes(path)
    with open_at(have) as (start, chunks), _incomplete(path).open("ab") as file:
        if start != have:  # the server does not send parts of files
            file.truncate(start)
            have = start
        for chunk in chunks:
            if stop.is_set():
                raise Stopped
            file.write(chunk)
            have += len(chunk)
            arrived(have)
    if stop.is_set():
        raise Stopped


def _check(partial: Path, *, size: int | None, sha256: str | None) -> None:
    found = partial.stat().st_size
    if size is not None and found != size:
        partial.unlink()
        raise Damaged(f"{found:,} bytes instead of {size:,}")
    if sha256 is not None and (digest := file_digest(partial)) != sha256:
        partial.unlink()
        raise Damaged(f"SHA-256 {digest} instead of {sha256}")
