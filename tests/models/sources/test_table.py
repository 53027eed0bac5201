"""What every source of candidates keeps to: a new one needs a line in NAMES."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.loopback_hub import LoopbackHub, loopback_hub
from helpers.timm_towers import PUBLISHED, add_published
from helpers.tiny_models import add_tags, add_tiny
from vlmsel_auto.errors import CandidateError
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.download import fetch, is_cached, sizes
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.models.sources.table import SOURCES, fingerprint, source_of
from vlmsel_auto.records import Candidate

NAMES = {
    "mini-zoo": "ViT-Mi-8-64.all-l",
    "open_clip": "ViT-Nano/folder",
    "hf-hub": "hf-hub:local/tiny",
    "timm": PUBLISHED,
    "local-dir": "local-dir:{folder}",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with loopback_hub(tmp_path) as found:
        add_tiny(found, tmp_path)
        add_published(found, tmp_path)
        add_tags(found, tmp_path, monkeypatch)
        yield found


@pytest.fixture
def folder(tmp_path: Path, minizoo: Path) -> Path:
    return shutil.copytree(minizoo / "RN-Mi-64.all-m", tmp_path / "mine")


@pytest.fixture(params=list(SOURCES))
def candidate(request: pytest.FixtureRequest, hub: LoopbackHub, folder: Path) -> Candidate:
    (found,) = resolve(NAMES[request.param].format(folder=folder))
    assert found.source == request.param
    return found


def test_each_name_is_of_one_source(candidate: Candidate, folder: Path) -> None:
    name = NAMES[candidate.source].format(folder=folder)
    found = {key: source.resolve(name) for key, source in SOURCES.items()}
    assert [key for key, each in found.items() if each is not None] == [candidate.source]
    assert found[candidate.source] == candidate
    for other in ("", "/", "a/b", ":", "no such name"):
        assert source_of(candidate).resolve(other) is None


def test_a_fingerprint_is_its_own_and_stays(candidate: Candidate) -> None:
    found = fingerprint(candidate)
    assert found == fingerprint(candidate)
    assert len(found) == 64
    assert found not in {fingerprint(each) for each in resolve("mini-zoo") if each != candidate}


def test_facts_are_known_before_anything_is_downloaded(candidate: Candidate, hub: LoopbackHub) -> None:
    asked = len(hub.asked)
    found = facts_of(candidate)
    assert (found.candidate, found.image_size) == (candidate.id, candidate.view.size)
    assert found.licence
    assert (found.download_bytes == 0) == (source_of(candidate).files(candidate) == ())
    assert len(hub.asked) == asked


def test_its_files_are_all_that_loading_asks_the_hub_for(candidate: Candidate, hub: LoopbackHub) -> None:
    told = sizes([candidate])[candidate.id]
    fetch(candidate)
    assert is_cached(candidate)
    assert (told > 0) == bool(source_of(candidate).files(candidate))
    asked = len(hub.asked)
    model = zoo.load(candidate)
    assert len(hub.asked) == asked
    size = candidate.view.size
    assert torch.isfinite(model.embed(torch.zeros(1, 3, size, size))).all()
    if candidate.has_text:
        assert len(model.text_features(["cat", "dog"], ["a {}."])) == 2
    assert zoo.load(candidate, text=False).tokenizer is None


def test_names_to_suggest_are_its_own() -> None:
    for key, source in SOURCES.items():
        for name in list(source.names())[:3]:
            found = source.resolve(name)
            assert isinstance(found, Candidate)
            assert found.source == key


def test_a_name_of_a_source_that_is_nothing_there_is_an_error(hub: LoopbackHub) -> None:
    for name in ("hf-hub:local/absent", "local-dir:absent", "ViT-Nano/none", "ViT-Mi-8-64.none"):
        with pytest.raises(CandidateError):
            resolve(name)
