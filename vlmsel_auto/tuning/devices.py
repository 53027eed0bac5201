"""What one trial of a tower trains on: one device, or several of a machine together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vlmsel_auto.errors import InputError

_STARTING: Final = ("spawn", "fork", "notebook")  # strategies that start processes themselves


@dataclass(frozen=True, kw_only=True, slots=True)
class Devices:
    """What one trial of a tower trains on, so many of the search's kind of device."""

    count: int = 1
    strategy: str = "ddp"  # Lightning's name for how several share the work: one of the "ddp" family


ALONE: Final = Devices()


def several_devices(count: int, *, strategy: str, device: str) -> Devices:
    """What each trial of a tower trains on.

    Raises:
        InputError: no device, one that is named by its number, or no strategy that can be used.
    """
    if count < 1 or (count > 1 and ":" in device):
        raise InputError(f"devices must be at least 1, several of them of a kind, but got {count} of {device!r}")
    if not strategy.startswith("ddp") or any(word in strategy for word in _STARTING):
        raise InputError(
            f"strategy must be one of Lightning's ddp family that starts no process, such as "
            f"{ALONE.strategy} or ddp_find_unused_parameters_true, but got {strategy!r}"
        )
    return Devices(count=count, strategy=strategy)
