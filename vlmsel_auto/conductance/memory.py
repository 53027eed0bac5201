"""How much memory passes may take."""

from __future__ import annotations

import os

import torch

_CPU_SHARE, _CPU_MOST, _CPU_PASSES = 0.25, 2 * 2**30, 256 * 2**20
_GPU_SHARE = 0.6
_FALLBACK = 256 * 2**20


def memory_budget(device: torch.device) -> int:
    """Bytes that the passes of one call may take on ``device``: a share of what is free now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # free inside our own cache
        return int(_GPU_SHARE * (free + held))
    if device.type == "mps":
        return int(_GPU_SHARE * (torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()))
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not every system tells
        return _FALLBACK
    return min(_CPU_MOST, int(_CPU_SHARE * free))


def enough_for_passes(device: torch.device) -> int | None:
    """`Batches.passes`: on CPUs larger passes are no faster."""
    return _CPU_PASSES if device.type == "cpu" else None
