"""open_clip's tags: where their files lie, by the shipped catalogue or by an open_clip that it was not made for."""

import open_clip
import pytest

from vlmsel_auto.models import catalogue
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.hubfiles import HubFile
from vlmsel_auto.models.sources.open_clip_tags import SOURCE, places


def needed(name: str) -> list[str]:
    return [f"{each.repository}/{each.names[0]}" for each in SOURCE.files(resolve(name)[0]) if not each.optional]


def test_a_tag_needs_its_weights() -> None:
    assert SOURCE.files(resolve("ViT-B-32/laion2b_s34b_b79k")[0]) == (
        HubFile(
            repository="laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            names=("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        ),
    )
    plain, quick = (resolve(f"{arch}/openai")[0] for arch in ("ViT-B-32", "ViT-B-32-quickgelu"))
    assert SOURCE.files(plain) == SOURCE.files(quick)


def test_a_text_tower_of_transformers_needs_configuration_and_tokenizer() -> None:
    assert needed("roberta-ViT-B-32/laion2b_s12b_b32k") == [
        "roberta-base/config.json",
        "roberta-base/tokenizer.json",
        "laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k/open_clip_model.safetensors",
    ]
    assert needed("ViT-B-16-SigLIP/webli") == [
        "timm/ViT-B-16-SigLIP/tokenizer.json", "timm/ViT-B-16-SigLIP/open_clip_model.safetensors",
    ]  # fmt: skip


def test_the_shipped_places_are_those_of_the_installed_open_clip() -> None:
    for arch, tags in catalogue.tags().items():
        text = open_clip.get_model_config(arch)["text_cfg"]
        for tag in tags:
            text_cfg, place = places(arch, tag)
            assert place == open_clip.get_pretrained_cfg(arch, tag)["hf_hub"]
            assert all((text_cfg.get(key) or "") == text.get(key, "") for key in ("hf_model_name", "hf_tokenizer_name"))
    assert places("ViT-B-32", "no-such-tag") == ({}, "")


def test_another_open_clip_is_asked_where_its_files_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "is_of_installed", lambda: False)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["RN50"], "openai", {"hf_hub": "moved/there/"})
    assert places("RN50", "openai")[1] == "moved/there/"
