"""Presets: which models of open_clip, without twins and without what cannot be loaded here."""

import pytest

from vlmsel_auto.errors import CandidateError
from vlmsel_auto.events import Notice
from vlmsel_auto.models import candidates, catalogue, facts, hubfiles, presets
from vlmsel_auto.models.presets import PRESETS, members


@pytest.fixture
def every_package(monkeypatch):
    monkeypatch.setattr(hubfiles, "find_spec", lambda name: name)


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr(hubfiles, "find_spec", lambda name: None)


def ids(name):
    return [each.id for each in members(name).candidates]


def test_each_preset_holds_the_smaller_ones(every_package):
    sizes = {name: set(ids(name)) for name in PRESETS}
    assert list(PRESETS) == ["tiny", "laptop", "server", "all"]
    assert sizes["tiny"] < sizes["laptop"] < sizes["server"] < sizes["all"]
    assert {"ViT-B-32/openai", "MobileCLIP2-S0/dfndr2b"} <= sizes["tiny"]
    assert "ViT-L-14/openai" in sizes["laptop"] - sizes["tiny"]
    assert "ViT-bigG-14/laion2b_s39b_b160k" in sizes["server"] - sizes["laptop"]
    assert "EVA02-E-14/laion2b_s4b_b115k" in sizes["all"] - sizes["server"]


def test_bounds_of_size_hold(every_package):
    for preset in PRESETS.values():
        found = members(preset.name).candidates
        assert all(each.params <= preset.max_params and each.flops <= preset.max_flops for each in found)
        assert [each.params for each in found] == sorted(each.params for each in found)


def test_all_is_the_whole_catalogue_with_every_file_of_weights_once(every_package):
    repositories = [facts.facts_of(each).repository for each in members("all").candidates]
    named = {str(tag["hf_hub"]) for tags in catalogue.tags().values() for tag in tags.values()}
    assert len(repositories) == len(set(repositories)) == len(named)


def test_what_lacks_a_package_is_left_out_with_a_reason(no_package):
    found = members("laptop")
    assert "ViT-B-16-SigLIP2/webli" in found.lacking["transformers"]
    assert "ViT-B-16-SigLIP2/webli" not in ids("laptop")
    assert "transformers" in found.note
    assert "pip install" in found.note


def test_nothing_is_noted_where_nothing_is_left_out(every_package):
    assert "ViT-B-16-SigLIP2/webli" in ids("laptop")
    assert members("laptop").note == ""


def test_names_of_presets_are_candidates(no_package):
    events = []
    found = candidates.resolve(["laptop", "ViT-Mi-8-64.all-l"], sink=events.append)
    assert [each.id for each in found] == [*ids("laptop"), "ViT-Mi-8-64.all-l"]
    (event,) = events
    assert isinstance(event, Notice)
    assert event.text.startswith("preset laptop: ")
    assert candidates.resolve("tiny") == members("tiny").candidates
    usable, unusable = candidates.resolve_usable("server")
    assert (usable, unusable) == (members("server").candidates, ())


def test_an_unknown_preset_is_refused():
    with pytest.raises(CandidateError, match="tiny, laptop, server, all, but got 'huge'"):
        members("huge")
    with pytest.raises(CandidateError, match="did you mean laptop"):
        candidates.resolve("labtop")
    assert presets.find_preset("tiny").max_params == 160e6
