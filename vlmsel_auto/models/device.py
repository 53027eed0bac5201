"""The device that models run on, by name."""

from __future__ import annotations

import torch

from vlmsel_auto.errors import InputError


def pick_device(name: str = "auto") -> torch.device:
    """Device ``name`` ("cpu", "cuda", "cuda:1", "mps"), or with "auto" the fastest kind that is there.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises AssertionError where CUDA was not built in
        raise InputError(f"this device cannot be used; try 'auto' or 'cpu', but got {name!r}") from error
    return device
