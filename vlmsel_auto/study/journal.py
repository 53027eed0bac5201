"""Optuna's journal in a file, each line with a check sum: a flipped bit is noticed.

Optuna's dashboard and its own `JournalFileBackend` read the file; they ignore the sum.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from optuna.storages.journal import JournalFileBackend

from vlmsel_auto.events import Notice, Sink

JOURNAL: Final = "study.journal"
_SUM: Final = "crc32"


class CheckedJournal(JournalFileBackend):
    """A journal file whose lines bear check sums; lines of other writers, without one, are taken as they are."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines, each with the check sum of the rest of it."""
        plain: list[dict[str, Any]] = json.loads(json.dumps(logs))
        super().append_logs([{**each, _SUM: _checksum(each)} for each in plain])

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]  # Generator
        """Lines from a number on.

        Raises:
            ValueError: a line is damaged.
        """
        for each in super().read_logs(log_number_from):
            told = each.pop(_SUM, None)
            if told is not None and told != _checksum(each):
                raise ValueError(f"a line of the journal is damaged, but got {str(each)[:80]}")
            yield each


def _checksum(log: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(log, sort_keys=True).encode())


def mend(path: Path, *, sink: Sink) -> None:
    """Make a journal readable after a kill or damage; the caller holds the lock of its folder.

    What was written by halves never happened, and a damaged journal is put aside: results are files of their own, from
    which the study is made whole again.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if not path.exists():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    try:
        for _ in CheckedJournal(str(path)).read_logs(0):
            pass
    except (ValueError, AttributeError) as error:  # AttributeError: a line that is no object
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        told = f"{path} was damaged ({error}): it is put aside as {aside.name}, and written anew from the results"
        sink(Notice(text=told, level="warning"))
