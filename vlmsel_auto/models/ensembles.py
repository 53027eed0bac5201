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


def write_ensemble(
    folder: Path, *, weights: Sequence[float], answers: Sequence[AnswerLevel] = (), card: str = ""
) -> None:
    """Make an ensemble of ``folder/member-1`` to ``member-N``; members of an earlier export beyond that go.

    ``card`` is its README.md, see `card.ensemble_card`.
    """
    names = [f"member-{place}" for place in range(1, len(weights) + 1)]
    what = {"members": names, "weights": list(weights), "answers": encode(answers)}
    if card:
        write_atomically(folder / "README.md", card.encode())
    write_atomically(
        folder / _RECORD, (json.dumps({"format": _FORMAT, "version": _VERSION, **what}, indent=1) + "\n").encode()
    )
    for other in folder.glob("member-*"):
        if other.name not in names:
            shutil.rmtree(other, ignore_errors=True)


def read_ensemble(folder: Path) -> Ensemble | None:
    """The members of an ensemble; None where the folder is none.

    Raises:
        CandidateError: its record is damaged, or names something outside the folder.
    """
    try:
        record = parse_json((folder / _RECORD).read_bytes())
        names, weights = record["members"], [float(each) for each in record["weights"]]
        _check(record["format"], record["version"], names, weights)
        members = tuple(_inside(folder, name) for name in names)
        answers = tuple(decode(AnswerLevel, each) for each in record.get("answers", ()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CandidateError(f"The ensemble cannot be read ({error}), but got {str(folder)!r}") from error
    return Ensemble(members=members, weights=tuple(weights), answers=answers)


def _check(name: object, version: object, members: Sequence[str], weights: Sequence[float]) -> None:
    if (name, version) != (_FORMAT, _VERSION) or not members:
        raise ValueError(f"only {_FORMAT!r} version {_VERSION} with members is read")
    if len(weights) != len(members) or not all(math.isfinite(each) and each >= 0 for each in weights):
        raise ValueError("each member needs a weight that is not negative")


def _inside(folder: Path, name: str) -> Path:
    """The folder of a member. A link may lead to another place in the ensemble, not out of it."""
    member, root = folder / name, folder.resolve()
    if Path(name).name != name or name in ("", ".", "..") or root not in member.resolve().parents:
        raise ValueError("a member must be a folder inside the ensemble")
    return member
