"""Architectures of open_clip with random weights, under the names that a pretraining tag has: from hub to embedding.

This open_clip knows no TinyCLIP.
"""

import shutil
import weakref
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch

from helpers.loopback_hub import LoopbackHub, loopback_hub
from helpers.real_architectures import image, serve_texts, serve_weights
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.download import is_cached
from vlmsel_auto.models.sources.open_clip_tags import places
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
KEPT = 100e6  # bytes that caches of libraries may keep of a model of 0.1 to 1.5 GB


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackHub]:
    with loopback_hub(tmp_path) as found:
        yield found
    shutil.rmtree(tmp_path)  # gigabytes


def memory() -> int:
    release_memory()
    return psutil.Process().memory_info().rss


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_an_architecture_comes_from_the_hub_as_it_was_saved(server: LoopbackHub, tmp_path: Path, name: str) -> None:
    (candidate,) = resolve(name)
    text_cfg, place = places(candidate.arch, candidate.tag)
    if text_cfg.get("hf_tokenizer_name"):
        if find_spec("transformers") is None:
            pytest.skip("its tokenizer needs transformers, which is not installed")
        serve_texts(server, text_cfg, tmp_path / "texts")
    repository = place.rstrip("/")
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
