"""What is known of open_clip's published models without importing it.

It ships in ``data/openclip_catalogue.json``, made by ``benchmarks/makers/model_cards.py``. Only a name
that is missing there makes this module ask the installed open_clip.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import cast

from vlmsel_auto.cache import Json
from vlmsel_auto.models.modeldir import family_of, view_of
from vlmsel_auto.records import Candidate

HUB = "hf-hub:"  # open_clip's prefix of a repository in its own format


@functools.cache
def version(package: str) -> str:
    """As `importlib.metadata.version`, which reads and parses a file at each call."""
    return metadata.version(package)


def tags() -> Mapping[str, Mapping[str, Json]]:
    """Return the pretraining tags of every architecture: arch -> tag -> preprocessing and place on the hub.

    ``same_as`` names the candidate to use where two names have the same weights.
    """
    return cast("dict[str, dict[str, Json]]", _catalogue()["pretrained"])


def architecture(arch: str) -> Mapping[str, Json]:
    """Return what was counted of an architecture of open_clip; empty for one that the catalogue lacks."""
    return cast("dict[str, dict[str, Json]]", _catalogue()["architectures"]).get(arch, {})


def published(arch: str, tag: str) -> Candidate | None:
    """Return open_clip's pretrained model ``ARCH/TAG``, or None if there is none of that name."""
    catalogue = _catalogue()
    known = cast("dict[str, dict[str, Json]]", catalogue["architectures"]).get(arch)
    tags = cast("dict[str, dict[str, dict[str, Json]]]", catalogue["pretrained"]).get(arch, {})
    if known is None or tag not in tags:
        is_other = version("open_clip_torch") != catalogue["open_clip"]
        return _installed(arch, tag) if "open_clip" in sys.modules or is_other else None
    params, flops = known["params"], known["visual_flops"]
    return Candidate(
        id=f"{arch}/{tag}",
        source="open_clip",
        arch=arch,
        tag=tag,
        view=view_of(tags[tag], size=known["image_size"], name=f"{arch}/{tag}"),
        params=params if isinstance(params, int) else None,
        flops=float(flops) if isinstance(flops, int | float) else None,
        family=str(known["family"]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class HubSources:
    """Where on the hub a model's files lie; an empty text where it needs none."""

    weights: str  # "ORG/NAME/" for open_clip's usual names, or "ORG/NAME/FILE"
    text_model: str  # repositories of what transformers makes: the configuration of the text tower,
    tokenizer: str  # and the tokenizer


def hub_sources(arch: str, tag: str) -> HubSources | None:
    """Return where the files of open_clip's pretrained model ``ARCH/TAG`` lie; None if there is none of that name."""
    catalogue = _catalogue()
    tags = cast("dict[str, dict[str, dict[str, Json]]]", catalogue["pretrained"]).get(arch, {})
    if tag in tags and version("open_clip_torch") == catalogue["open_clip"]:
        text, weights = cast("dict[str, dict[str, Json]]", catalogue["architectures"])[arch], tags[tag]
    else:  # another open_clip may take them from elsewhere
        model_cfg, tags = installed().get(arch, ({}, {}))
        if tag not in tags:
            return None
        text, weights = cast("dict[str, Json]", model_cfg["text_cfg"]), tags[tag]
    return sources_of(text, weights=str(weights.get("hf_hub") or ""))


def sources_of(text_cfg: Mapping[str, Json], *, weights: str) -> HubSources:
    """Return the sources that a model's ``text_cfg`` names, with those of its weights."""
    named = (str(text_cfg.get(key) or "") for key in ("hf_model_name", "hf_tokenizer_name"))
    text_model, tokenizer = named
    return HubSources(weights=weights, text_model=text_model, tokenizer=tokenizer)


def _installed(arch: str, tag: str) -> Candidate | None:
    """A name that the shipped catalogue lacks: a newer open_clip has it, or the caller registered it."""
    model_cfg, tags = installed().get(arch, ({}, {}))
    return configured(f"{arch}/{tag}", arch, tag, model_cfg, tags[tag]) if tag in tags else None


def installed() -> dict[str, tuple[dict[str, Json], dict[str, dict[str, Json]]]]:
    """What the installed open_clip knows: architecture -> (model_cfg, pretraining tag -> its configuration)."""
    import open_clip
    from open_clip.pretrained import list_pretrained_tags_by_model

    found: dict[str, tuple[dict[str, Json], dict[str, dict[str, Json]]]] = {}
    for arch in open_clip.list_models():
        tags = {tag: dict(open_clip.get_pretrained_cfg(arch, tag)) for tag in list_pretrained_tags_by_model(arch)}
        found[arch] = (cast("dict[str, Json]", open_clip.get_model_config(arch)), tags)
    return found


def configured(
    name: str, arch: str, tag: str, model_cfg: Mapping[str, Json], preprocess: Mapping[str, Json]
) -> Candidate:
    """Return the candidate that open_clip's configuration describes, its size not counted."""
    vision = model_cfg.get("vision_cfg")
    size = vision.get("image_size", 224) if isinstance(vision, dict) else None
    view = view_of(preprocess, size=size, name=name)
    return Candidate(id=name, source="open_clip", arch=arch, tag=tag, view=view, family=family_of(model_cfg))


def _catalogue() -> Mapping[str, Json]:
    return read_json(package_file("data") / "openclip_catalogue.json")


def package_file(name: str) -> Path:
    """Return the path of a file or folder that ships in the package."""
    return Path(str(files("vlmsel_auto"))) / name


@functools.cache
def read_json(path: Path) -> Mapping[str, Json]:
    """Read a JSON object that ships in the package; it is read from disk once."""
    return cast("dict[str, Json]", json.loads(path.read_text("utf-8")))
