"""Optuna's journal in a file, made readable after a kill or damage."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from vlmsel_auto.events import Notice, Sink

JOURNAL: Final = "study.journal"
STUDY: Final = "vlmsel-auto"  # name of the study in it


def mend(path: Path, *, sink: Sink) -> None:
    """Make a journal readable after a kill or damage; the caller holds the lock of its folder.

    What was written by halves never happened, and a journal that Optuna cannot read is put aside: results are files of
    their own, from which the study is made whole again.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if not path.exists():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    try:
        JournalStorage(JournalFileBackend(str(path)))  # reads all of it
    except Exception as error:  # noqa: BLE001 - what a damaged line makes Optuna raise, it does not say
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        told = f"{path} was damaged ({error}): it is put aside as {aside.name}, and written anew from the results"
        sink(Notice(text=told, level="warning"))
