"""How many images, points and blocks go through the tower at once within a memory budget: arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

from vlmsel_auto.conductance.footprint import Footprint

RUNNING = 9  # arrays a block that contraction.Running holds: three sums, h and g of three points
_ROWS = 32  # worth putting through a tower together whatever they take (ViT-B-32: 17 % less time than 16)
_KEPT = 6  # h and g at all points, and at half of them from the rule before, in half the budget


def even(count: int, most: int) -> int:
    """Size of pieces of ``count`` things, at most ``most`` in each, in the fewest pieces and as even as can be."""
    return -(-count // -(-count // most))


@dataclass(frozen=True, kw_only=True)
class Batches:
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
