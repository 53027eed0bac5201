"""What the installed open_clip knows of published models, where the shipped catalogue does not say."""

from __future__ import annotations

from typing import cast

import open_clip
from open_clip.pretrained import list_pretrained_tags_by_model

from vlmsel_auto.cache import Json


def published() -> dict[str, tuple[dict[str, Json], dict[str, dict[str, Json]]]]:
    """What the installed open_clip knows: architecture -> (model_cfg, pretraining tag -> its configuration)."""
    found: dict[str, tuple[dict[str, Json], dict[str, dict[str, Json]]]] = {}
    for arch in open_clip.list_models():
        tags = {tag: dict(open_clip.get_pretrained_cfg(arch, tag)) for tag in list_pretrained_tags_by_model(arch)}
        found[arch] = (cast("dict[str, Json]", open_clip.get_model_config(arch)), tags)
    return found
