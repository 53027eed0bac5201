"""QUESTION: What makes the small JSON files that let candidates be listed without torch?

PAGE: docs/real-models.md
RESULT: none

    python -m benchmarks.makers.model_cards

Writes ``card.json`` beside each mini-zoo model (parameters, cost of the visual tower, image size, preprocessing
geometry, digest of weights and configuration) and ``data/openclip_catalogue.json`` (open_clip's architectures and
pretraining tags, with where the files lie on the hub). Run it after a change of the mini zoo or of the pinned
open_clip.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.makers.tower_costs import TowerCost, made, tower_cost
from vlmsel_auto.cache import Json, digest, file_digest, write_atomically
from vlmsel_auto.library import published
from vlmsel_auto.models import zoo
from vlmsel_auto.models.catalogue import installed
from vlmsel_auto.models.modeldir import family_of, read_model_dir, view_of
from vlmsel_auto.records import Candidate


def cost_fields(cost: TowerCost) -> dict[str, Json]:
    """A tower's cost as a card and the catalogue keep it."""
    return {"visual_flops": cost.flops, "visual_written": cost.written, "visual_peak": cost.peak}


def card(folder: Path) -> dict[str, Json]:
    """Measure the model in ``folder``."""
    found = read_model_dir(folder)
    candidate = Candidate(
        id=folder.name,
        source="local-dir",
        arch=folder.name,
        tag="",
        path=folder,
        view=view_of(found.preprocess_cfg, size=found.image_size, name=folder.name),
    )
    model = zoo.load(candidate)
    vocabulary = file_digest(found.vocabulary) if found.vocabulary else ""
    geometry: dict[str, Json] = {
        key: found.preprocess_cfg[key]
        for key in ("resize_mode", "interpolation", "fill_color")
        if key in found.preprocess_cfg
    }
    return {
        "params": sum(each.numel() for each in model.model.parameters()),
        "visual_params": sum(each.numel() for each in model.visual.parameters()),
        **cost_fields(tower_cost(model.model, size=candidate.view.size)),
        "image_size": found.image_size,
        "preprocess": geometry,
        "family": family_of(found.model_cfg),
        "sha256": digest(file_digest(found.weights), file_digest(found.config_path), vocabulary),
    }


def catalogue(profile: Mapping[str, Mapping[str, str]]) -> dict[str, Json]:
    """What the installed open_clip knows. ``profile`` (rows of model_profile.csv) has what cannot be counted here."""
    architectures: dict[str, Json] = {}
    pretrained: dict[str, dict[str, dict[str, Json]]] = {}
    for arch, (model_cfg, tags) in sorted(installed().items()):
        vision = cast("dict[str, Json]", model_cfg["vision_cfg"])
        size = cast("int", vision.get("image_size", 224))
        model, has_text = made(model_cfg)
        row = profile.get(arch.removesuffix("-quickgelu"))
        params: int | None = sum(each.numel() for each in model.parameters())
        if not has_text:  # transformers would take the text tower's size from the hub
            params = round(float(row["mparams"]) * 1e6) if row else None
        architectures[arch] = {
            "image_size": size,
            "family": family_of(model_cfg),
            "params": params,
            **cost_fields(tower_cost(model, size=size)),
            **text_sources(model_cfg),
        }
        pretrained[arch] = {
            tag: {key: cfg.get(key) for key in ("resize_mode", "interpolation", "hf_hub")}
            for tag, cfg in sorted(tags.items())
        }
    for name, twin in twins(pretrained).items():
        arch, _, tag = name.rpartition("/")
        pretrained[arch][tag]["same_as"] = twin
    return {
        "source": f"open_clip {version('open_clip_torch')} (MIT); params of models with a text tower of transformers "
        "restated from mlfoundations/open_clip docs/model_profile.csv (MIT)",
        "open_clip": version("open_clip_torch"),
        "architectures": architectures,
        "pretrained": cast("Json", pretrained),
    }


def twins(pretrained: Mapping[str, Mapping[str, Mapping[str, Json]]]) -> dict[str, str]:
    """Names of one file of weights, each with the name to use: the one with the best published figures."""
    named: dict[Json, list[str]] = defaultdict(list)
    for arch, tags in pretrained.items():
        for tag, cfg in tags.items():
            named[cfg["hf_hub"]].append(f"{arch}/{tag}")
    found: dict[str, str] = {}
    for names in named.values():
        means = np.nan_to_num(published.zero_shot(names).mean(axis=1))
        best = names[int(means.argmax())]
        found |= {name: best for name in names if name != best}
    return found


def text_sources(model_cfg: Mapping[str, Json]) -> dict[str, Json]:
    """The repositories that the text tower and its tokenizer come from, where transformers makes them."""
    text = cast("dict[str, Json]", model_cfg["text_cfg"])
    return {key: text[key] for key in ("hf_model_name", "hf_tokenizer_name") if text.get(key)}


def main() -> None:
    """Write every card; with the path of open_clip's docs/model_profile.csv as argument, the catalogue too."""
    package = Path(str(files("vlmsel_auto")))
    for folder in sorted((package / "minizoo").iterdir()):
        if folder.is_dir():
            write_atomically(folder / "card.json", (json.dumps(card(folder), indent=1) + "\n").encode())
    if len(sys.argv) > 1:
        with Path(sys.argv[1]).open(encoding="utf-8", newline="") as stream:
            rows = {row["model"]: row for row in csv.DictReader(stream)}
        path = package / "data" / "openclip_catalogue.json"
        write_atomically(path, (json.dumps(catalogue(rows), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
