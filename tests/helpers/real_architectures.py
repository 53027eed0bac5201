"""Architectures of open_clip with random weights, served by a hub on loopback."""

import json
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import open_clip
import torch
from safetensors.torch import save_file

from helpers.loopback_hub import LoopbackHub

ROBERTA = {
    "model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
}  # fmt: skip
SLOW = ("normal_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "uniform_")


def serve_texts(server: LoopbackHub, text_cfg: Mapping[str, object], folder: Path) -> None:
    """Serve configuration and tokenizer of a text tower that transformers makes."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if text_cfg.get("hf_model_name"):
        server.add(text_cfg["hf_model_name"], "config.json", json.dumps(ROBERTA).encode())
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1, "cat": 2, "dog": 3}, unk_token="<unk>"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>").save_pretrained(folder)  # noqa: S106
    for path in folder.iterdir():
        server.add(text_cfg["hf_tokenizer_name"], path.name, path.read_bytes())


def serve_weights(server: LoopbackHub, arch: str, tag: str, path: Path, repository: str) -> torch.Tensor:
    """Serve random weights in half precision; returns what they make of an image."""
    quick = bool(open_clip.get_pretrained_cfg(arch, tag).get("quick_gelu"))
    with patch.multiple(torch.nn.init, **{name: lambda tensor, *_, **__: tensor for name in SLOW}):
        model = open_clip.create_model(arch, force_quick_gelu=quick, pretrained_text=False)
    values = 0.05 * torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    for place, parameter in enumerate(model.parameters()):  # quicker than a draw for each
        for part in parameter.data.view(-1).split(len(values) - place):
            part.copy_(values[place : place + len(part)])
    model = model.half()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    server.add(repository, "open_clip_model.safetensors", path)
    with torch.no_grad():
        return model.float().eval().encode_image(image(model.visual.image_size), normalize=False)


def image(size: object) -> torch.Tensor:
    side = size if isinstance(size, int) else size[0]
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
