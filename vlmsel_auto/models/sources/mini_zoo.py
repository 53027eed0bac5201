"""The mini zoo: small models that ship with the package, each a folder with a card."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.errors import CandidateError
from vlmsel_auto.models.catalogue import package_file, read_json
from vlmsel_auto.models.modeldir import view_of
from vlmsel_auto.models.sources import local_folders
from vlmsel_auto.models.sources.source import CandidateSource, Stated
from vlmsel_auto.records import Candidate

_NAME: Final = "mini-zoo"


@functools.cache
def mini_zoo() -> tuple[Candidate, ...]:
    """Return the models that ship with the package, sorted by id."""
    return tuple(_member(card.parent) for card in sorted(package_file("minizoo").glob("*/card.json")))


def _resolve(name: str) -> Candidate | None:
    return next((each for each in mini_zoo() if each.id == name), None)


def _facts(candidate: Candidate) -> Stated:
    card = _card(candidate)
    written, peak = card.get("visual_written"), card.get("visual_peak")
    return Stated(
        written=written if isinstance(written, int) else None,
        peak=peak if isinstance(peak, int) else 0,
        licence="Apache-2.0",  # LICENSE of this package
        training_data="see minizoo/README.md",
    )


def _fingerprint(candidate: Candidate) -> str:
    return digest(_NAME, candidate.id, str(_card(candidate).get("sha256")))  # of its files, which are not read


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
        source=_NAME,
        arch=arch,
        tag=tag,
        path=folder,
        view=view_of(cast("dict[str, Json]", card["preprocess"]), size=card["image_size"], name=folder.name),
        params=params,
        flops=float(flops),
        family=str(card["family"]),
    )


SOURCE: Final = CandidateSource(
    name=_NAME,
    resolve=_resolve,
    facts=_facts,
    fingerprint=_fingerprint,
    load=local_folders.load,
    names=lambda: (each.id for each in mini_zoo()),
)
