"""The mini zoo: small models that ship with the package, each a folder with a card."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.errors import CandidateError
from vlmsel_auto.models.catalogue import package_file, read_json
from vlmsel_auto.models.hubfiles import HubFile
from vlmsel_auto.models.modeldir import view_of
from vlmsel_auto.models.sources import local_folders
from vlmsel_auto.models.sources.source import Stated
from vlmsel_auto.records import Candidate

if TYPE_CHECKING:
    from vlmsel_auto.models.loaders import Opened

NAME: Final = "mini-zoo"


@functools.cache
def mini_zoo() -> tuple[Candidate, ...]:
    """Return the models that ship with the package, sorted by id."""
    return tuple(_member(card.parent) for card in sorted(package_file("minizoo").glob("*/card.json")))


def resolve(name: str, base: Path) -> Candidate | None:
    """The member whose folder has that name."""
    del base
    return next((each for each in mini_zoo() if each.id == name), None)


def names() -> Iterator[str]:
    """Ids of all members."""
    return (each.id for each in mini_zoo())


def facts(candidate: Candidate) -> Stated:
    """What its card tells."""
    card = _card(candidate)
    written, peak = card.get("visual_written"), card.get("visual_peak")
    return Stated(
        written=written if isinstance(written, int) else None,
        peak=peak if isinstance(peak, int) else 0,
        licence="Apache-2.0",  # LICENSE of this package
        training_data="see minizoo/README.md",
    )


def fingerprint(candidate: Candidate) -> str:
    """From the digest on its card: its files are not read."""
    return digest(NAME, candidate.id, str(_card(candidate).get("sha256")))


def files(candidate: Candidate) -> tuple[HubFile, ...]:
    """None: it is on this disk."""
    del candidate
    return ()


def load(candidate: Candidate, *, text: bool) -> Opened:
    """Load the folder, as a user's own."""
    return local_folders.load(candidate, text=text)


def _card(candidate: Candidate) -> Mapping[str, Json]:
    return {} if candidate.path is None else read_json(candidate.path / "card.json")


def _member(folder: Path) -> Candidate:
    card = read_json(folder / "card.json")
    arch, _, tag = folder.name.partition(".")
    flops, params = card["visual_flops"], card["params"]
    if not isinstance(flops, int | float) or not isinstance(params, int):
        raise CandidateError(f"The card of {folder.name!r} lacks its figures; reinstall the package, but got {card!r}")
    return Candidate(
        id=folder.name,
        source=NAME,
        arch=arch,
        tag=tag,
        path=folder,
        view=view_of(cast("dict[str, Json]", card["preprocess"]), size=card["image_size"], name=folder.name),
        params=params,
        flops=float(flops),
        family=str(card["family"]),
    )
