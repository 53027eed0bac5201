"""Which files of the hub a candidate needs, told without asking it."""

import json
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest

from helpers.loopback_hub import LoopbackHub, loopback_hub
from vlmsel_auto.errors import CandidateError
from vlmsel_auto.models import catalogue, hub
from vlmsel_auto.models.candidates import mini_zoo, resolve
from vlmsel_auto.models.hub import HubFile
from vlmsel_auto.models.hubfiles import files_of, read_config, sources_for, weights_file
from vlmsel_auto.records import Candidate


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackHub]:
    with loopback_hub(tmp_path) as found:
        yield found


def names(candidate: Candidate, *, optional: bool = False) -> list[str]:
    return [f"{each.repository}/{each.names[0]}" for each in files_of(candidate) if each.optional == optional]


def test_the_mini_zoo_and_folders_need_nothing(minizoo: Path) -> None:
    assert files_of(mini_zoo()[0]) == ()
    assert files_of(resolve(f"local-dir:{minizoo / mini_zoo()[0].id}")[0]) == ()


def test_a_tag_needs_its_weights() -> None:
    assert files_of(resolve("ViT-B-32/laion2b_s34b_b79k")[0]) == (
        HubFile(
            repository="laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            names=("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        ),
    )
    plain, quick = (resolve(f"{arch}/openai")[0] for arch in ("ViT-B-32", "ViT-B-32-quickgelu"))
    assert files_of(plain) == files_of(quick)
    assert weights_file("a/b/c.d.pth") == HubFile(repository="a/b", names=("c.d.safetensors", "c.d.pth"))
    assert weights_file("a/b/c.npz") == HubFile(repository="a/b", names=("c.npz",))


def test_a_text_tower_of_transformers_needs_configuration_and_tokenizer() -> None:
    roberta = resolve("roberta-ViT-B-32/laion2b_s12b_b32k")[0]
    assert names(roberta) == [
        "roberta-base/config.json",
        "roberta-base/tokenizer.json",
        "laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k/open_clip_model.safetensors",
    ]
    assert "roberta-base/tokenizer_config.json" in names(roberta, optional=True)
    siglip = resolve("ViT-B-16-SigLIP/webli")[0]
    assert names(siglip) == ["timm/ViT-B-16-SigLIP/tokenizer.json", "timm/ViT-B-16-SigLIP/open_clip_model.safetensors"]


def test_a_repository_names_its_files_once_its_configuration_is_here(server: LoopbackHub) -> None:
    name = server.add_mini_zoo("ViT-Mi-8-64.all-l", "mini/one")
    unseen = Candidate(id=name, source="open_clip", arch=name, tag="", view=mini_zoo()[0].view)
    assert names(unseen) == ["mini/one/open_clip_config.json", "mini/one/open_clip_model.safetensors"]
    resolve(name)
    assert names(unseen)[1] == "mini/one/bpe.txt.gz"
    config = json.loads(server.files["mini/one/open_clip_config.json"])
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "some/words", "hf_model_name": "some/text"}
    server.add("mini/text", "open_clip_config.json", json.dumps(config).encode())
    found = names(resolve("hf-hub:mini/text")[0])
    assert found[2:4] == ["some/text/config.json", "some/words/tokenizer.json"]


def test_the_shipped_places_are_those_of_the_installed_open_clip() -> None:
    for arch, tags in catalogue.tags().items():
        text = open_clip.get_model_config(arch)["text_cfg"]
        for tag in tags:
            sources = catalogue.hub_sources(arch, tag)
            assert sources is not None
            assert sources.weights == open_clip.get_pretrained_cfg(arch, tag)["hf_hub"]
            assert (sources.text_model, sources.tokenizer) == (
                text.get("hf_model_name", ""), text.get("hf_tokenizer_name", "")
            )  # fmt: skip
    assert catalogue.hub_sources("ViT-B-32", "no-such-tag") is None


def test_another_open_clip_is_asked_where_its_files_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "version", lambda name: "0.0")
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["RN50"], "openai", {"hf_hub": "moved/there/"})
    assert sources_for(resolve("RN50/openai")[0]).weights == "moved/there/"


def test_a_configuration_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("{}")
    with pytest.raises(CandidateError, match="not in open_clip's format"):
        read_config(tmp_path / "config")
    assert hub.cached(HubFile(repository="a/b", names=("c",))) is None
