"""What trials of towers may train on."""

import pytest

from vlmsel_auto.errors import InputError
from vlmsel_auto.tuning.devices import ALONE, Devices, several_devices


def test_one_device_needs_no_strategy_and_several_share_by_ddp() -> None:
    assert several_devices(1, strategy="ddp", device="cuda:1") == ALONE
    chosen = several_devices(4, strategy="ddp_find_unused_parameters_true", device="cuda")
    assert chosen == Devices(count=4, strategy="ddp_find_unused_parameters_true")


@pytest.mark.parametrize(
    ("count", "strategy", "device"),
    [
        (0, "ddp", "cuda"),
        (2, "ddp", "cuda:1"),
        (2, "fsdp", "cuda"),
        (2, "ddp_spawn", "cpu"),
        (2, "ddp_notebook", "cpu"),
    ],
)
def test_what_cannot_be_is_refused(count: int, strategy: str, device: str) -> None:
    with pytest.raises(InputError, match="but got"):
        several_devices(count, strategy=strategy, device=device)
