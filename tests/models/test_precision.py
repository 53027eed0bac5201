from dataclasses import replace

import open_clip
import pytest
import torch
from torch.nn.functional import cosine_similarity

from vlmsel_auto.models import precision, zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.precision import quick_encoder


@pytest.fixture(scope="module")
def model():
    """A member of the mini zoo, said to be large."""
    loaded = zoo.load(mini_zoo()[-1])
    return replace(loaded, candidate=replace(loaded.candidate, flops=1e10))


@pytest.fixture
def images(model):
    size = model.candidate.view.size
    return torch.rand(12, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def quick(monkeypatch):
    """A device with units for bfloat16, which is the quicker way whatever the clock says."""
    ways = iter([0.02, 0.01])
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda _: True)
    monkeypatch.setattr(precision, "_timed", lambda encode, few: (encode(few), next(ways)))


def test_bfloat16_is_used_where_it_is_quicker_and_turns_nothing(model, images, quick):
    before = {name: value.clone() for name, value in model.visual.state_dict().items()}
    found = quick_encoder(model, images)
    assert found.is_bfloat16
    assert found.seconds == 0.02
    with torch.inference_mode():
        made, expected = found.encode(images), model.embed(images)
    assert made.dtype == torch.float32
    assert cosine_similarity(made, expected, dim=1).min() > 0.999
    assert not torch.equal(made, expected)
    after = model.visual.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())  # the model stays what it is


def test_an_unfaithful_way_is_not_taken(model, images, quick, monkeypatch):
    monkeypatch.setattr(precision, "_LEAST_COSINE", 1.1)
    found = quick_encoder(model, images)
    assert not found.is_bfloat16
    with torch.inference_mode():
        assert torch.equal(found.encode(images), model.embed(images))


def test_a_slower_way_is_not_taken(model, images, monkeypatch):
    ways = iter([0.01, 0.02])
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda _: True)
    monkeypatch.setattr(precision, "_timed", lambda encode, few: (encode(few), next(ways)))
    assert not quick_encoder(model, images).is_bfloat16


def test_small_models_and_devices_without_units_stay_as_they_are(model, images, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda _: False)
    assert not quick_encoder(model, images).is_bfloat16
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda _: True)
    small = replace(model, candidate=mini_zoo()[-1])
    found = quick_encoder(small, images)
    assert (found.is_bfloat16, found.seconds) == (False, None)


def test_a_tower_that_cannot_compute_so_is_embedded_in_float32(model, images, quick, monkeypatch):
    def refuse(*_: object) -> torch.Tensor:
        raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr(precision, "functional_call", refuse)
    assert not quick_encoder(model, images).is_bfloat16


@pytest.mark.parametrize("arch", ["ViT-B-32", "RN50", "EVA02-B-16", "ViT-B-16-SigLIP"])
@pytest.mark.slow
def test_real_architectures_compute_so(arch, model, quick):
    made = open_clip.create_model(arch, pretrained=None).eval()
    real = replace(model, model=made)
    noise = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    found = quick_encoder(real, noise)
    assert found.is_bfloat16
    with torch.inference_mode():
        assert cosine_similarity(found.encode(noise), real.embed(noise), dim=1).min() > 0.999


@pytest.mark.parametrize("units", [False, True])
def test_a_gpu_trains_in_bfloat16_only_where_it_has_units_for_it(model, images, monkeypatch, units):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda *, including_emulation=True: including_emulation or units
    )
    assert precision.tunes_in_bfloat16(replace(model, device=torch.device("cuda")), images) == units
