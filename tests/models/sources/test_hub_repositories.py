"""Repositories of the hub name their files in their configuration."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.loopback_hub import LoopbackHub, loopback_hub
from vlmsel_auto.models.candidates import mini_zoo, resolve
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.models.sources.hub_repositories import SOURCE
from vlmsel_auto.records import Candidate


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackHub]:
    with loopback_hub(tmp_path) as found:
        yield found


def needed(candidate: Candidate) -> list[str]:
    return [f"{each.repository}/{each.names[0]}" for each in SOURCE.files(candidate) if not each.optional]


def test_a_repository_names_its_files_once_its_configuration_is_here(server: LoopbackHub) -> None:
    name = server.add_mini_zoo("ViT-Mi-8-64.all-l", "mini/one")
    unseen = Candidate(id=name, source="hf-hub", arch=name, tag="", view=mini_zoo()[0].view)
    assert needed(unseen) == ["mini/one/open_clip_config.json"]
    resolve(name)
    assert needed(unseen) == [
        f"mini/one/{each}" for each in ("open_clip_config.json", "bpe.txt.gz", "open_clip_model.safetensors")
    ]
    config = json.loads(server.files["mini/one/open_clip_config.json"])
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "some/words", "hf_model_name": "some/text"}
    server.add("mini/text", "open_clip_config.json", json.dumps(config).encode())
    found = needed(resolve("hf-hub:mini/text")[0])
    assert found[2:4] == ["some/text/config.json", "some/words/tokenizer.json"]


def test_what_publishers_state_of_a_repository_is_known(server: LoopbackHub) -> None:
    name = server.add_mini_zoo("ViT-Mi-8-64.all-l", "laion/mine")
    found = facts_of(resolve(name)[0])
    assert (found.repository, found.licence, found.params) == ("laion/mine", "MIT", None)
