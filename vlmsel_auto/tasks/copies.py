"""What happens to images that are in a task folder more than once."""

from __future__ import annotations

from collections.abc import Sequence

from vlmsel_auto.records import BadFile
from vlmsel_auto.tasks.scan import Entry, Part, printable

__all__ = ["settle_copies"]


def settle_copies(
    good: Sequence[int], *, entries: Sequence[Entry], digests: Sequence[str]
) -> tuple[list[int], list[BadFile]]:
    """Leave out copies across given splits and copies with contradicting labels.

    Of copies in several splits the ones in test stay, else the ones in val: a model must not be tuned or chosen on what
    it is tested on, and a given test split is used whole. Copies of one image under several labels teach nothing: they
    are left out of train, and altogether where no split is given. Other copies are kept.

    Args:
        good: Positions of the images that can be used.
        entries: All entries.
        digests: Of the decoded pixels of all entries, equal for copies.

    Returns:
        The positions that stay, and a line on each copy that was left out or has a contradicting label.
    """
    groups: dict[str, list[int]] = {}
    for place in good:
        groups.setdefault(digests[place], []).append(place)
    dropped: set[int] = set()
    listed: list[BadFile] = []
    for members in groups.values():
        copies = [entries[place] for place in members]
        for place in members if len(members) > 1 else ():
            verdict = _verdict(entries[place], copies)
            if verdict is not None:
                listed.append(verdict)
                if not verdict.used:
                    dropped.add(place)
    return [place for place in good if place not in dropped], listed


def _verdict(entry: Entry, copies: Sequence[Entry]) -> BadFile | None:
    """What to say of one of several copies; None: nothing, it stays."""
    present = {one.part for one in copies}
    home: Part | None = "test" if "test" in present else "val" if "val" in present else None
    if home is not None and entry.part != home:
        twin = next(one for one in copies if one.part == home)
        return BadFile(
            path=printable(entry.path), reason=f"same image as {printable(twin.path)}; left out of {entry.part}"
        )
    other = next((one for one in copies if one.label != entry.label), None)
    if other is None:
        return None
    reason = f"same image as {printable(other.path)}, but labelled {entry.label!r} and not {other.label!r}"
    return BadFile(path=printable(entry.path), reason=reason, used=home is not None)
