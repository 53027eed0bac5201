"""A search's folder on a node that does not see the work directory, and the removal of those that nobody uses any more.

All processes of the node that work for the search share the folder. Each holds a lock beside it, as many at once as
like, until it ends, however it ends; who gets that lock for itself alone knows that no process uses the folder. Without
such locks (Windows, where Ray runs no cluster) folders stay.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # not there on Windows

_PREFIX: Final = "vlmsel-node-"
_held: dict[Path, int] = {}  # of this process: open locks


def node_folder(search: str) -> Path:
    """The folder of a search on this node, only for this user; folders of this user's ended searches are removed."""
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{search}"
    if folder not in _held and fcntl is not None:
        _held[folder] = _shared(_lock_of(folder))
        _sweep(folder)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _shared(lock: Path) -> int:
    """An open lock file that is locked together with others, and is still the one that has this name."""
    while True:
        opened = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(opened, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if lock.stat().st_ino == os.fstat(opened).st_ino:
                return opened
        os.close(opened)  # another process swept it away meanwhile


def _sweep(own: Path) -> None:
    """What cannot be read or removed stays."""
    for lock in own.parent.glob(f"{_PREFIX}*.lock"):
        folder = lock.with_suffix("")
        if folder in _held or folder.is_symlink():
            continue
        with suppress(OSError):
            opened = os.open(lock, os.O_RDWR)  # refused where it is another user's
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():
                    lock.unlink()
            finally:
                os.close(opened)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
