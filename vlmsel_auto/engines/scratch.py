"""A folder of one process below the system's temporary one, and the removal of those whose process was killed.

Beside each folder lies a lock that its process takes before the folder is made, and that the system releases when the
process dies, however it dies. Who gets the lock of another's folder knows that nobody uses it any more.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

_PREFIX: Final = "vlmsel-shared-"


class Scratch:
    """The folder ``path``, only for this user, until `close`; folders of this user's dead processes are removed."""

    def __init__(self) -> None:
        self.path = Path(tempfile.gettempdir()) / f"{_PREFIX}{secrets.token_hex(8)}"
        self._lock = FileLock(_lock_of(self.path), thread_local=False)
        self._lock.acquire()
        self.path.mkdir(mode=0o700)
        self._sweep()

    def close(self) -> None:
        """Remove it."""
        _remove(self.path)
        self._lock.release()

    def _sweep(self) -> None:
        """What cannot be read or removed stays, as does a folder without a lock: nothing is known of its process."""
        owner = self.path.stat().st_uid
        for folder in self.path.parent.glob(f"{_PREFIX}*/"):
            with suppress(OSError, Timeout):
                mine = folder.lstat().st_uid == owner and not folder.is_symlink()
                if folder != self.path and mine and _lock_of(folder).exists():
                    with FileLock(_lock_of(folder), timeout=0):
                        _remove(folder)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove(folder: Path) -> None:
    """With its lock, which the caller holds."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        with suppress(OSError):  # a system that keeps the names of open files
            _lock_of(folder).unlink(missing_ok=True)
