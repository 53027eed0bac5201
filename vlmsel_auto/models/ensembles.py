"""A folder of several exported models whose probabilities are averaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.errors import CandidateError

_RECORD = "ensemble.json"
_FORMAT = "vlmsel_auto ensemble"
_VERSION = 1


def write_ensemble(folder: Path, *, members: int) -> None:
    """Make an ensemble of ``folder/member-1`` to ``member-N``; members of an earlier export beyond that go."""
    names = [f"member-{place}" for place in range(1, members + 1)]
    record = {"format": _FORMAT, "version": _VERSION, "members": names}
    write_atomically(folder / _RECORD, (json.dumps(record, indent=1) + "\n").encode())
    for other in folder.glob("member-*"):
        if other.name not in names:
            shutil.rmtree(other, ignore_errors=True)


def members_of(folder: Path) -> tuple[Path, ...] | None:
    """Folders of an ensemble's members; None where the folder is no ensemble.

    Raises:
        CandidateError: its record is damaged, or names something outside the folder.
    """
    try:
        record = json.loads((folder / _RECORD).read_text("utf-8"))
        names = record["members"]
        _check(record["format"], record["version"], names)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CandidateError(f"The ensemble cannot be read ({error}), but got {str(folder)!r}") from error
    return tuple(folder / name for name in names)


def _check(name: object, version: object, members: Sequence[str]) -> None:
    if (name, version) != (_FORMAT, _VERSION) or not members:
        raise ValueError(f"only {_FORMAT!r} version {_VERSION} with members is read")
    if any(Path(each).name != each for each in members):
        raise ValueError("a member must be a folder inside the ensemble")
