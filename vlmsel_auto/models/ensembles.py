"""A folder of several exported models that are pooled: ``member-1`` ... ``member-N`` and the weight of each."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.errors import CandidateError
from vlmsel_auto.recordjson import decode, encode, parse_json
from vlmsel_auto.records import AnswerLevel

_RECORD = "ensemble.json"
_FORMAT = "vlmsel_auto ensemble"
_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """Folders of the members, and the weights of their log-probabilities (`pooling.pool`)."""

    members: tuple[Path, ...]
    weights: tuple[float, ...]
    answers: tuple[AnswerLevel, ...] = ()  # as those of a `Classifier`


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """What the file holds; members are names of folders."""

    format: str
    version: int
    members: tuple[str, ...]
    weights: tuple[float, ...]
    answers: tuple[AnswerLevel, ...] = ()


def write_ensemble(
    folder: Path, *, weights: Sequence[float], answers: Sequence[AnswerLevel] = (), card: str = ""
) -> None:
    """Make an ensemble of ``folder/member-1`` to ``member-N``; members of an earlier export beyond that go.

    ``card`` is its README.md, see `card.ensemble_card`.
    """
    names = tuple(f"member-{place}" for place in range(1, len(weights) + 1))
    record = _Record(format=_FORMAT, version=_VERSION, members=names, weights=tuple(weights), answers=tuple(answers))
    if card:
        write_atomically(folder / "README.md", card.encode())
    write_atomically(folder / _RECORD, (json.dumps(encode(record), indent=1) + "\n").encode())
    for other in folder.glob("member-*"):
        if other.name not in names:
            shutil.rmtree(other, ignore_errors=True)


def read_ensemble(folder: Path) -> Ensemble | None:
    """The members of an ensemble; None where the folder is none.

    Raises:
        CandidateError: its record is damaged, or names something outside the folder.
    """
    try:
        found = decode(_Record, parse_json((folder / _RECORD).read_bytes()))
        if (found.format, found.version) != (_FORMAT, _VERSION) or not found.members:
            raise ValueError(f"only {_FORMAT!r} version {_VERSION} with members is read")  # noqa: TRY301 - as what decode finds
        if len(found.weights) != len(found.members) or not all(0 <= each < math.inf for each in found.weights):
            raise ValueError("each member needs a weight that is not negative")  # noqa: TRY301 - likewise
        members = tuple(_inside(folder, name) for name in found.members)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CandidateError(f"The ensemble cannot be read ({error}), but got {str(folder)!r}") from error
    return Ensemble(members=members, weights=found.weights, answers=found.answers)


def _inside(folder: Path, name: str) -> Path:
    """The folder of a member. A link may lead to another place in the ensemble, not out of it."""
    member, root = folder / name, folder.resolve()
    if Path(name).name != name or name in ("", ".", "..") or root not in member.resolve().parents:
        raise ValueError("a member must be a folder inside the ensemble")
    return member
