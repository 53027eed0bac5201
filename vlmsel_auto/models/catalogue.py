"""What is known of open_clip's published models without importing it, from files that ship in ``data/``.

``openclip_catalogue.json`` is made by ``tools/model_cards.py``; licences and training data in
``openclip_publishers.json`` are what the publishers state, with the source beside each row.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Final, TypeAlias, cast

from vlmsel_auto.cache import Json

Table: TypeAlias = Mapping[str, Json]
UNKNOWN: Final = "unknown"


def tags() -> Mapping[str, Mapping[str, Table]]:
    """Return the pretraining tags of every architecture: arch -> tag -> preprocessing and place on the hub.

    ``same_as`` names the candidate to use where two names have the same weights.
    """
    return cast("dict[str, dict[str, dict[str, Json]]]", _catalogue()["pretrained"])


def pretrained(arch: str) -> Mapping[str, Table]:
    """Return `tags` of one architecture; empty for one that the catalogue lacks."""
    return tags().get(arch, {})


def architecture(arch: str) -> Table:
    """Return what was counted of an architecture of open_clip; empty for one that the catalogue lacks."""
    return cast("dict[str, dict[str, Json]]", _catalogue()["architectures"]).get(arch, {})


def licence_of(repository: str) -> str:
    """SPDX identifier of the weights in a repository of the hub, the publisher's name for it, or "unknown"."""
    return str(_row("licences", repository, pattern="repositories").get("licence", UNKNOWN))


def training_data_of(tag: str) -> Mapping[str, str | float]:
    """What is stated of the data behind a pretraining tag: ``data``, a name, and ``pairs``, how many; maybe empty."""
    return _row("training_data", tag, pattern="tags")


@functools.cache
def is_of_installed() -> bool:
    """Whether the catalogue was made for the open_clip that is installed."""
    return metadata.version("open_clip_torch") == _catalogue()["open_clip"]


def installed() -> dict[str, tuple[dict[str, Json], dict[str, dict[str, Json]]]]:
    """What the installed open_clip knows: architecture -> (model_cfg, pretraining tag -> its configuration)."""
    import open_clip
    from open_clip.pretrained import list_pretrained_tags_by_model

    found: dict[str, tuple[dict[str, Json], dict[str, dict[str, Json]]]] = {}
    for arch in open_clip.list_models():
        tags = {tag: dict(open_clip.get_pretrained_cfg(arch, tag)) for tag in list_pretrained_tags_by_model(arch)}
        found[arch] = (cast("dict[str, Json]", open_clip.get_model_config(arch)), tags)
    return found


def package_file(name: str) -> Path:
    """Return the path of a file or folder that ships in the package."""
    return Path(str(files("vlmsel_auto"))) / name


@functools.cache
def read_json(path: Path) -> Table:
    """Read a JSON object that ships in the package; it is read from disk once."""
    return cast("dict[str, Json]", json.loads(path.read_text("utf-8")))


def _catalogue() -> Table:
    return read_json(package_file("data") / "openclip_catalogue.json")


def _row(rows: str, name: str, *, pattern: str) -> Mapping[str, str | float]:
    """The first row whose pattern fits; empty: none does."""
    table = cast("list[dict[str, str]]", read_json(package_file("data") / "openclip_publishers.json")[rows])
    return next((row for row in table if fnmatchcase(name, row[pattern])), {})
