import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.start_values import NoStartValues


@pytest.mark.parametrize(
    "fill",
    [
        nn.init.normal_,
        nn.init.uniform_,
        nn.init.trunc_normal_,
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
        nn.init.xavier_normal_,
        nn.init.xavier_uniform_,
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
    ],
)
def test_nothing_is_drawn_within_and_everything_after(fill):
    kept = torch.full((3, 4), 0.25)
    before = torch.get_rng_state()
    with NoStartValues():
        fill(kept)
        layer = nn.Linear(5, 5)
        nn.init.ones_(layer.weight)  # what is not random is filled
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layer.weight, torch.ones(5, 5))
    fill(kept)
    assert not torch.equal(torch.get_rng_state(), before)
    assert len(kept.unique()) > 6


@pytest.mark.parametrize("candidate", mini_zoo()[::5], ids=lambda each: each.id)
def test_a_loaded_model_has_every_weight_of_its_file(candidate):
    model = zoo.load(candidate).model
    (file,) = candidate.path.glob("*.safetensors")
    known = load_file(file)
    found = dict(model.named_parameters())
    assert set(found) <= set(known)
    assert all(torch.equal(value, known[name].float()) for name, value in found.items())
