"""Optuna's journal in a file that one process owns: appended without a lock and without waiting for the disk.

A line reaches the system before the next step, so a killed process loses nothing. A machine that goes down may lose the
last lines: results are files of their own, written through to the disk, from which the study is made whole again.
The format is Optuna's own: `optuna.storages.journal.JournalFileBackend` reads the file, and so does its dashboard.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from optuna.storages.journal import BaseJournalBackend

__all__ = ["Journal"]


class Journal(BaseJournalBackend):
    """The lines of one file, kept in memory too.

    Args:
        path: made if missing. The caller owns its folder: nobody else writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:  # half a line of a machine that went down: what it would have said never happened
            path.write_bytes(whole)
        self._lines: list[bytes] = whole.splitlines()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, object], None, None]:
        """Entries from this number on."""
        for line in self._lines[log_number_from:]:
            yield json.loads(line)

    def append_logs(self, logs: Sequence[Mapping[str, object]]) -> None:
        """Add entries."""
        lines = [json.dumps(each, separators=(",", ":")).encode() for each in logs]
        with self._path.open("ab") as stream:
            stream.write(b"".join(line + b"\n" for line in lines))
        self._lines += lines
