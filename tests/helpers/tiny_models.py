"""Models of open_clip that are built in no time, on a hub on loopback: as a repository, and under pretraining tags."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from helpers.loopback_hub import LoopbackHub

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


def weights(config: dict[str, object], folder: Path, *, seed: int = 0) -> tuple[bytes, dict[str, torch.Tensor]]:
    """A file of random weights, and what is in it."""
    torch.manual_seed(seed)
    cfg = json.loads(json.dumps(config))
    cfg.pop("custom_text", None)
    model = open_clip.CustomTextCLIP(**cfg) if config.get("custom_text") else open_clip.CLIP(**cfg)
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    return (folder / "weights.safetensors").read_bytes(), state


def add_tiny(
    hub: LoopbackHub, folder: Path, repository: str = "local/tiny", **config: object
) -> dict[str, torch.Tensor]:
    """Serve a tiny model as a repository in open_clip's format; returns its weights."""
    model_cfg = {**TINY, **config}
    data, state = weights(model_cfg, folder)
    record = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    hub.add(repository, "open_clip_config.json", json.dumps(record).encode())
    hub.add(repository, "open_clip_model.safetensors", data)
    return state


def add_tags(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Register a tiny architecture with open_clip, ``ViT-Nano``, with pretraining tags that point to the hub."""
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "ViT-Nano.json").write_text(json.dumps(TINY))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    open_clip.add_model_config(configs)
    common = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear", "resize_mode": "squash"}
    tags = {
        "folder": {**common, "hf_hub": "local/nano/"},
        "quick": {**common, "hf_hub": "local/nano/", "quick_gelu": True},
        "named": {**common, "hf_hub": "local/nano/nano.bin"},
        "absent": {**common, "hf_hub": "local/nano/absent.bin"},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-Nano", tags)
    data, state = weights(TINY, tmp_path)
    hub.add("local/nano", "open_clip_model.safetensors", data)
    torch.save(state, tmp_path / "nano.bin")
    hub.add("local/nano", "nano.bin", (tmp_path / "nano.bin").read_bytes())
    return state
