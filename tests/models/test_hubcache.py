"""What lies in the hub's cache: a folder as huggingface_hub lays it out."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from vlmsel_auto.models import candidates
from vlmsel_auto.models.hubcache import cache_dir, is_cached

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, repository: str, name: str) -> None:
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    file = folder / "snapshots" / COMMIT / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")


def found(name):
    return is_cached(candidates.resolve(name)[0])


def test_the_cache_is_where_the_environment_says(cache):
    assert cache_dir() == cache


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_weights_of_either_name_make_a_model_whole(cache, name):
    assert not found("ViT-B-32/openai")
    put(cache, "timm/vit_base_patch32_clip_224.openai", name)
    assert found("ViT-B-32/openai")
    assert not found("ViT-B-16/openai")


def test_a_tag_may_name_its_file(cache):
    put(cache, "jienengchen/ViTamin-S", "open_clip_pytorch_model.bin")
    assert not found("ViTamin-S/datacomp1b")
    put(cache, "jienengchen/ViTamin-S", "pytorch_model.bin")
    assert found("ViTamin-S/datacomp1b")


def test_a_text_tower_of_transformers_needs_its_files_too(cache):
    name = "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k"
    put(cache, "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k", "open_clip_pytorch_model.bin")
    assert not found(name)
    put(cache, "xlm-roberta-base", "config.json")
    assert not found(name)
    put(cache, "xlm-roberta-base", "tokenizer.json")
    assert found(name)


def test_what_ships_is_in_no_cache(cache):
    assert not found("ViT-Mi-8-64.all-l")
