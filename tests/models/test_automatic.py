"""``auto``: by machine, by what lies on the disk, else the mini zoo; the line says which."""

from dataclasses import replace

import pytest
from huggingface_hub import constants

from vlmsel_auto.models import automatic as module
from vlmsel_auto.models import facts, hubfiles
from vlmsel_auto.models.automatic import automatic
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.machine import Machine
from vlmsel_auto.models.presets import members

LAPTOP = Machine(
    device="cpu",
    cores=8,
    memory_bytes=12_000_000_000,
    disk_bytes=100_000_000_000,
    flops_per_second=3e11,
    bytes_per_second=1e10,
)
SERVER = replace(
    LAPTOP, device="cuda (H100)", memory_bytes=80_000_000_000, flops_per_second=4e13, bytes_per_second=1e12
)
BOARD = replace(LAPTOP, cores=4, memory_bytes=3_000_000_000, flops_per_second=5e10, bytes_per_second=2e9)
TOASTER = replace(BOARD, memory_bytes=500_000_000)


@pytest.fixture(autouse=True)
def _every_package(tmp_path, monkeypatch):
    monkeypatch.setattr(hubfiles, "find_spec", lambda name: name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def cached(monkeypatch):
    """Names of models that lie in the cache."""
    names = set()
    monkeypatch.setattr(module, "is_cached", lambda candidate: candidate.id in names)
    return names


@pytest.mark.parametrize(("machine", "preset"), [(BOARD, "tiny"), (LAPTOP, "laptop"), (SERVER, "all")])
def test_the_machine_chooses_the_preset(machine, preset):
    found = automatic(machine=machine, reachable=True)
    allowed = {each.id for each in members(preset).candidates}
    assert {each.id for each in found.candidates} <= allowed
    assert len(found.candidates) >= len(allowed) / 2
    assert f"preset {preset}" in found.line
    assert f"{len(found.candidates)} models" in found.line
    assert machine.device in found.line
    assert "\n" not in found.line


def test_what_does_not_suit_the_machine_is_no_candidate():
    found = automatic(machine=BOARD, reachable=True)
    assert all(facts.facts_of(each).memory_bytes <= 0.8 * BOARD.memory_bytes for each in found.candidates)
    assert "ViTamin-S/datacomp1b" in {each.id for each in found.candidates}
    full = automatic(machine=replace(BOARD, disk_bytes=300_000_000), reachable=True)
    assert full.candidates == mini_zoo()  # hardly anything of a preset fits onto the disk
    assert "this machine is small" in full.line


@pytest.mark.parametrize(
    ("reachable", "offline", "cause"), [(False, False, "the hub cannot be reached"), (True, True, "offline")]
)
def test_without_the_hub_what_lies_in_the_cache(cached, reachable, offline, cause):
    cached |= {"ViT-L-14/openai", "ViT-B-32/openai", "EVA02-E-14/laion2b_s4b_b115k"}
    found = automatic(machine=LAPTOP, reachable=reachable, offline=offline)
    assert [each.id for each in found.candidates] == ["ViT-B-32/openai", "ViT-L-14/openai"]  # the third does not fit
    assert cause in found.line
    assert constants.HF_HUB_CACHE in found.line


def test_without_anything_the_mini_zoo(cached):
    found = automatic(machine=LAPTOP, reachable=False)
    assert found.candidates == mini_zoo()
    assert f"the mini zoo, {len(mini_zoo())} small models" in found.line
    assert "the hub cannot be reached" in found.line


def test_a_machine_for_which_all_is_too_large_takes_the_mini_zoo():
    assert automatic(machine=TOASTER, reachable=True).candidates == mini_zoo()


def test_what_a_missing_package_costs_is_said(monkeypatch):
    monkeypatch.setattr(hubfiles, "find_spec", lambda name: None)
    assert "transformers" in automatic(machine=LAPTOP, reachable=True).line
