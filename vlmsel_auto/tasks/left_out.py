"""Files that a task left out: what is said of a copy, and lines for those who see no report."""

from __future__ import annotations

from collections.abc import Sequence

from vlmsel_auto.records import BadFile
from vlmsel_auto.tasks.labeltable import LABELS
from vlmsel_auto.tasks.names import printable, shown


def a_copy(path: str, *, of: str, more: str = "", used: bool = False) -> BadFile:
    """What to say of a file that shows the same image as another, or that another row of labels.csv names too."""
    if path == of:
        return BadFile(path=printable(path), reason=f"named more than once in {LABELS}{more}", used=used)
    twin = printable(of)
    return BadFile(path=printable(path), reason=f"same image as {twin}{more}", used=used, copy_of=twin)


def left_out_notes(bad_files: Sequence[BadFile]) -> tuple[str, ...]:
    """How many files cannot be used, how many are copies, and the first few of each."""
    unused = [one for one in bad_files if not one.used]
    copies = [one.path for one in unused if one.copy_of is not None]
    others = [f"{one.path}: {one.reason}" for one in unused if one.copy_of is None]
    notes = [(others, "cannot be used"), (copies, "copies of other images")]
    return tuple(f"files left out, {what}: {len(names):,}: {shown(names)}" for names, what in notes if names)
