"""Files of the hub by name: weights, and what transformers makes a text tower and a tokenizer of. Asks no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.models.modeldir import TOKENIZER, TOKENIZER_SETTINGS

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # open_clip.constants, in its order
_PICKLES = (".bin", ".pth")  # for which open_clip tries .safetensors first


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file of the repository ``ORG/NAME``: the first of ``names`` that the repository has."""

    repository: str
    names: tuple[str, ...]
    optional: bool = False  # True: the repository may have none of them


def weights_file(place: str) -> HubFile:
    """Return the weights at ``place``: ``ORG/NAME/`` for open_clip's usual names, or ``ORG/NAME/FILE``."""
    repository, _, name = place.rpartition("/")
    if not name:
        return HubFile(repository=repository, names=_WEIGHTS)
    safe = (f"{name[: -len(Path(name).suffix)]}.safetensors",) if name.endswith(_PICKLES) else ()
    return HubFile(repository=repository, names=(*safe, name))


def text_config(text_cfg: Mapping[str, Json]) -> tuple[HubFile, ...]:
    """The configuration of the text tower that transformers makes; none where it makes none."""
    name = text_cfg.get("hf_model_name")
    return (HubFile(repository=str(name), names=("config.json",)),) if name else ()


def text_files(text_cfg: Mapping[str, Json]) -> tuple[HubFile, ...]:
    """All that transformers needs for the texts of a model: configuration of the tower, and tokenizer."""
    if not text_cfg.get("hf_tokenizer_name"):
        return text_config(text_cfg)
    name = str(text_cfg["hf_tokenizer_name"])
    settings = (HubFile(repository=name, names=(each,), optional=True) for each in TOKENIZER_SETTINGS)
    return *text_config(text_cfg), *settings, HubFile(repository=name, names=TOKENIZER)


def lacking(text_cfg: Mapping[str, Json]) -> tuple[str, ...]:
    """Packages that a model needs for its texts and that are not installed."""
    wanted = text_cfg.get("hf_tokenizer_name") or text_cfg.get("hf_model_name")
    return ("transformers",) if wanted and find_spec("transformers") is None else ()


def check_packages(text_cfg: Mapping[str, Json], *, candidate: str) -> None:
    """Tell before a download of gigabytes that a text tower or tokenizer needs a package that is not installed.

    Raises:
        TrialUnavailable: transformers is needed and missing.
    """
    for package in lacking(text_cfg):
        raise TrialUnavailable(
            f"Candidate {candidate!r} needs the package {package} for its texts "
            f"({text_cfg.get('hf_tokenizer_name') or text_cfg.get('hf_model_name')}): pip install transformers "
            f"sentencepiece, or leave it out, but got none"
        )
