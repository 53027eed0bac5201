"""How much memory passes may take, and how many images, points and blocks go through the tower at once within it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from vlmsel_auto.conductance.footprint import Footprint

RUNNING = 9  # arrays a block that contraction.RunningSum holds: three sums, h and g of three points
_ROWS = 32  # worth putting through a tower together whatever they take (ViT-B-32: 17 % less time than 16)
_KEPT = 6  # h and g at all points, and at half of them from the rule before, in half the budget
_CPU_SHARE, _CPU_MOST, _CPU_PASSES = 0.25, 2 * 2**30, 256 * 2**20
_GPU_SHARE = 0.6
_FALLBACK = 256 * 2**20


def even(count: int, most: int) -> int:
    """Size of pieces of ``count`` things, at most ``most`` in each, in the fewest pieces and as even as can be."""
    return -(-count // -(-count // most))


@dataclass(frozen=True, kw_only=True)
class BatchSizes:
    """Sizes of batches for one tower. Half of the budget is for the passes, half for h and dF/dh that are kept."""

    foot: Footprint
    budget: int  # bytes
    passes: int | None = None  # a pass takes 32 rows, or more within these bytes; None: what the budget allows

    @property
    def least(self) -> int:
        """Bytes of one row: nothing smaller can be tried."""
        return self.foot.graph_bytes + sum(self.foot.block_bytes)

    def rows(self) -> int:
        """Rows of one pass."""
        each = max(1, self.foot.graph_bytes + 2 * sum(self.foot.block_bytes))
        most = self.budget // (2 * each)
        return max(1, most if self.passes is None else min(most, max(_ROWS, self.passes // each)))

    def images(self, points: int, new: int, *, keeps: bool) -> int:
        """Images that are swept together at ``new`` of a rule's ``points``; ``keeps``: h and g of all are kept."""
        count = self.rows() // new
        if keeps:
            count = min(count, self.budget // (_KEPT * points * sum(self.foot.block_bytes)))
        return max(1, count)

    def keeps(self, points: int) -> bool:
        """Whether h and g of one image at ``points`` points, those of the next rule, fit into half the budget."""
        return _KEPT * points * sum(self.foot.block_bytes) <= self.budget

    def groups(self, held: int) -> list[tuple[int, ...]]:
        """Groups of blocks of which ``held`` outputs each (of one image) fit into half the budget."""
        groups: list[list[int]] = [[]]
        taken = 0
        for index, size in enumerate(self.foot.block_bytes):
            need = held * size
            if groups[-1] and 2 * (taken + need) > self.budget:
                groups.append([])
                taken = 0
            groups[-1].append(index)
            taken += need
        return [tuple(group) for group in groups]


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
    """`BatchSizes.passes`: on CPUs larger passes are no faster."""
    return _CPU_PASSES if device.type == "cpu" else None
