"""Architectures of open_clip with random weights, under the names that a pretraining tag has: from hub to embedding.

This open_clip knows no TinyCLIP.
"""

import json
import shutil
import weakref
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import open_clip
import psutil
import pytest
import torch
from safetensors.torch import save_file

from helpers.loopback_hub import LoopbackHub, loopback_hub
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.catalogue import HubSources
from vlmsel_auto.models.download import is_cached
from vlmsel_auto.models.hubfiles import sources_for
from vlmsel_auto.process import release_memory

REAL = (
    "ViT-B-32/laion2b_s34b_b79k",
    "ViT-B-32-quickgelu/openai",
    "RN50/openai",
    "convnext_base/laion400m_s13b_b51k",
    "EVA02-B-16/merged2b_s8b_b131k",
    "MobileCLIP2-S0/dfndr2b",
    "ViT-B-16-SigLIP/webli",
    "ViT-B-32-SigLIP2-256/webli",
    "roberta-ViT-B-32/laion2b_s12b_b32k",
)
ROBERTA = {
    "model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
}  # fmt: skip
SLOW = ("normal_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "uniform_")
KEPT = 100e6  # bytes that caches of libraries may keep of a model of 0.1 to 1.5 GB


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackHub]:
    with loopback_hub(tmp_path) as found:
        yield found
    shutil.rmtree(tmp_path)  # gigabytes


def serve_texts(server: LoopbackHub, sources: HubSources, folder: Path) -> None:
    """Serve configuration and tokenizer of a text tower that transformers makes."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if sources.text_model:
        server.add(sources.text_model, "config.json", json.dumps(ROBERTA).encode())
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1, "cat": 2, "dog": 3}, unk_token="<unk>"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>").save_pretrained(folder)  # noqa: S106
    for path in folder.iterdir():
        server.add(sources.tokenizer, path.name, path.read_bytes())


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


def memory() -> int:
    release_memory()
    return psutil.Process().memory_info().rss


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_an_architecture_comes_from_the_hub_as_it_was_saved(server: LoopbackHub, tmp_path: Path, name: str) -> None:
    (candidate,) = resolve(name)
    sources = sources_for(candidate)
    if sources.tokenizer:
        if find_spec("transformers") is None:
            pytest.skip("its tokenizer needs transformers, which is not installed")
        serve_texts(server, sources, tmp_path / "texts")
    repository = sources.weights.rstrip("/")
    expected = serve_weights(server, candidate.arch, candidate.tag, tmp_path / "weights.safetensors", repository)
    before = memory()
    model = zoo.load(candidate)
    assert is_cached(candidate)
    found = model.embed(image(candidate.view.size))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert model.text_features(["cat", "dog"], ["{}"]).shape == (2, found.shape[1])
    assert server.count("GET", f"{repository}/resolve/main/open_clip_model.safetensors") == 1
    alive = weakref.ref(model.model)
    del model
    assert memory() - before < KEPT
    assert alive() is None
