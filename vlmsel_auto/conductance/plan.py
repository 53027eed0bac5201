"""How many images, points and blocks go through the tower at once within a memory budget: arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

from vlmsel_auto.conductance.sweep import Footprint

__all__ = ["Plan"]

_KEPT = 6  # h and g at all points, and at half of them from the rule before, in half the budget


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Chunks for one tower. One half of the budget is for the passes, one for h and dF/dh that are kept.

    Attributes:
        foot: what one row (an image at a point) takes.
        budget: bytes.
    """

    foot: Footprint
    budget: int

    @property
    def least(self) -> int:
        """Bytes of one row: nothing smaller can be tried."""
        return self.foot.graph_bytes + sum(self.foot.block_bytes)

    def rows(self) -> int:
        """Rows of one pass."""
        each = self.foot.graph_bytes + 2 * sum(self.foot.block_bytes)
        return max(1, self.budget // (2 * max(1, each)))

    def images(self, points: int, new: int, *, keeps: bool) -> int:
        """Images that are swept together at ``new`` of a rule's ``points``; ``keeps``: h and g of all are kept."""
        count = self.rows() // new
        if keeps:
            count = min(count, self.budget // (_KEPT * points * sum(self.foot.block_bytes)))
        return max(1, count)

    def keeps(self, points: int) -> bool:
        """Whether h and g of one image at ``points`` points, those of the next rule, fit into half the budget."""
        return _KEPT * points * sum(self.foot.block_bytes) <= self.budget

    def groups(self, points: int) -> list[tuple[int, ...]]:
        """Groups of blocks whose h and g of one image, at all points, fit into half the budget."""
        if points <= self.rows():
            return [tuple(range(len(self.foot.block_bytes)))]
        groups: list[list[int]] = [[]]
        held = 0
        for index, size in enumerate(self.foot.block_bytes):
            need = 2 * points * size
            if groups[-1] and 2 * (held + need) > self.budget:
                groups.append([])
                held = 0
            groups[-1].append(index)
            held += need
        return [tuple(group) for group in groups]
