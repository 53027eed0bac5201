"""Folders below the system's temporary one, each gone once no process holds it any more.

An engine of this machine has one of its own, for what its workers read. The workers of a search on a node that does not
see the work directory share one. Every process that uses a folder holds a shared lock beside it, which the system
releases when the process dies. A process that gets the exclusive lock knows that nobody uses the folder. Without
such locks (Windows) the folders of killed processes stay.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

_PREFIX: Final = "vlmsel-held-"
_held: dict[Path, int] = {}  # of this process: open locks


def hold(name: str) -> Path:
    """The folder of this name, only for this user, until `release` or this process's end; what nobody holds is removed.

    Args:
        name: shared by the processes that are to have the same folder, and by no others.
    """
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{name}"
    if sys.platform != "win32" and folder not in _held:
        _held[folder] = _shared(_lock_of(folder))
        _sweep(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def release(folder: Path) -> None:
    """Remove what `hold` gave, unless other processes hold it."""
    if sys.platform == "win32":
        shutil.rmtree(folder, ignore_errors=True)
    elif folder in _held:
        opened = _held.pop(folder)
        try:
            _remove(folder, opened)
        finally:
            os.close(opened)


def _shared(lock: Path) -> int:
    """An open lock file that is locked together with others."""
    while True:
        opened = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(opened, fcntl.LOCK_SH)
        if _is_there(lock, opened):
            return opened
        os.close(opened)  # another process swept it away meanwhile


def _sweep(place: Path) -> None:
    """Remove what nobody holds. What is another user's, or cannot be read or removed, stays; so do links."""
    for lock in place.glob(f"{_PREFIX}*.lock"):
        with suppress(OSError):
            opened = os.open(lock, os.O_RDWR)
            try:
                _remove(lock.with_suffix(""), opened)
            finally:
                os.close(opened)


def _remove(folder: Path, opened: int) -> None:
    """Remove a folder whose lock is ``opened``, and that lock, where nobody else holds it and both are this user's."""
    lock = _lock_of(folder)
    with suppress(BlockingIOError):
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_there(lock, opened) and _is_mine(folder) and _is_mine(lock):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                lock.unlink()


def _is_there(lock: Path, opened: int) -> bool:
    """Whether the open file still is the one that has this name."""
    with suppress(FileNotFoundError):
        return lock.stat().st_ino == os.fstat(opened).st_ino
    return False


def _is_mine(path: Path) -> bool:
    """Whether it is no link and nobody else's, root's own rights aside; what is missing is."""
    with suppress(FileNotFoundError):
        return path.lstat().st_uid == os.geteuid() and not path.is_symlink()
    return True


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
