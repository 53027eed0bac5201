import pytest
import torch

from vlmsel_auto.errors import InputError
from vlmsel_auto.models.device import pick_device


def test_devices_by_name():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(InputError, match="got 'abacus'"):
        pick_device("abacus")
