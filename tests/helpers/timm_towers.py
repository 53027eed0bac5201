"""Visual towers of timm that are built in no time: a published one on a hub on loopback, and one in a folder."""

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from helpers.loopback_hub import LoopbackHub

PUBLISHED = "timm:test_vit.r160_in1k"
SMALL = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}


def add_published(hub: LoopbackHub, folder: Path) -> torch.nn.Module:
    """Serve random weights of timm's smallest ViT, with its classifier, as the published file; returns the model."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", pretrained=False)
    save_file(model.state_dict(), folder / "published.safetensors")
    hub.add("timm/test_vit.r160_in1k", "model.safetensors", (folder / "published.safetensors").read_bytes())
    return model.eval()


def write_tower(folder: Path, **config: object) -> torch.nn.Module:
    """Write a small tower as timm writes it; returns the model."""
    torch.manual_seed(0)
    folder.mkdir()
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, **SMALL)
    save_file(model.state_dict(), folder / "model.safetensors")
    stated = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    written = {"architecture": "vit_tiny_patch16_224", "model_args": SMALL, "pretrained_cfg": stated, **config}
    (folder / "config.json").write_text(json.dumps(written))
    return model.eval()
