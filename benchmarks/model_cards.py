"""Make the small JSON files that let candidates be listed without torch: ``python benchmarks/model_cards.py``.

Writes ``card.json`` beside each mini-zoo model (parameters, floating-point operations of the visual tower, image size,
preprocessing geometry, digest of weights and configuration) and ``data/openclip_catalogue.json`` (open_clip's
architectures and pretraining tags). Run it after a change of the mini zoo or of the pinned open_clip.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlmsel_auto.cache import Json, digest, file_digest, write_atomically
from vlmsel_auto.models import zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.models.modeldir import family_of, read_model_dir, view_of
from vlmsel_auto.records import Candidate


def visual_flops(model: LoadedModel) -> float:
    """Floating-point operations (2 x multiply-adds of products, convolutions and attention) of one image."""
    size = model.candidate.view.size
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused operations hide from the counter: this one and CPU's flash
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            model.embed(torch.zeros(1, 3, size, size, device=model.device))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return float(counter.get_total_flops())


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
        "visual_flops": visual_flops(model),
        "image_size": found.image_size,
        "preprocess": geometry,
        "family": family_of(found.model_cfg),
        "sha256": digest(file_digest(found.weights), file_digest(found.config_path), vocabulary),
    }


def catalogue(profile: Mapping[str, Mapping[str, str]]) -> dict[str, Json]:
    """What the installed open_clip knows, with the published figures of ``profile`` (rows of model_profile.csv)."""
    architectures: dict[str, Json] = {}
    pretrained: dict[str, Json] = {}
    for arch, (model_cfg, tags) in sorted(zoo.published().items()):
        row = profile.get(arch.removesuffix("-quickgelu"), {})
        vision = cast("dict[str, Json]", model_cfg["vision_cfg"])
        architectures[arch] = {
            "image_size": vision.get("image_size", 224),
            "family": family_of(model_cfg),
            "params": round(float(row["mparams"]) * 1e6) if row else None,
            "visual_flops": round(float(row["image_gflops"]) * 1e9) if row else None,
        }
        pretrained[arch] = {
            tag: {"resize_mode": cfg.get("resize_mode"), "interpolation": cfg.get("interpolation")}
            for tag, cfg in sorted(tags.items())
        }
    return {
        "source": f"open_clip {version('open_clip_torch')} (MIT); params and visual_flops restated from "
        "mlfoundations/open_clip docs/model_profile.csv (MIT)",
        "open_clip": version("open_clip_torch"),
        "architectures": architectures,
        "pretrained": pretrained,
    }


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
