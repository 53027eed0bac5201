"""Lines on the files that a task left out, for those who see no report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vlmsel_auto.records import BadFile
from vlmsel_auto.tasks.names import shown

SAME: Final = "same image as"  # how the reason of a copy begins


def left_out_notes(bad_files: Sequence[BadFile]) -> tuple[str, ...]:
    """How many files cannot be used, how many are copies, and the first few of each."""
    unused = [one for one in bad_files if not one.used]
    copies = [one.path for one in unused if one.reason.startswith(SAME)]
    others = [f"{one.path}: {one.reason}" for one in unused if not one.reason.startswith(SAME)]
    notes = [(others, "cannot be used"), (copies, "copies of other images")]
    return tuple(f"files left out, {what}: {len(names):,}: {shown(names)}" for names, what in notes if names)
