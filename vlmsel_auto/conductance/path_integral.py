"""The machinery behind ``conductance``: chunks, nested rules, reduction over neurons.

A chunk of images is swept at all points of a rule. Each block's h and dF/dh (m, P, F) are contracted at once with the
rule's matrix, C = sum_kj A[k, j] g[k] h[j], and with those of the coarser rules, which give the error. Images whose
error is too large climb to the rule of twice as many intervals; only its new points are evaluated as long as h and g
fit into memory. Where they do not fit for one image, rules that join neighbouring points only are summed piece by
piece; for others the blocks are swept in groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlmsel_auto.conductance.batches import RUNNING, BatchSizes, enough_for_passes, even
from vlmsel_auto.conductance.blocks import to_rows
from vlmsel_auto.conductance.contraction import (
    Part,
    RunningSum,
    contract_levels,
    differences,
    estimate_error,
    interleave,
)
from vlmsel_auto.conductance.footprint import Footprint, check_ends, measure
from vlmsel_auto.conductance.quadrature import Rule
from vlmsel_auto.conductance.scalars import Scalar
from vlmsel_auto.conductance.sweep import Sweep, widened
from vlmsel_auto.errors import ConductanceError
from vlmsel_auto.process import is_out_of_memory, release_memory
from vlmsel_auto.records import FloatArray, IntArray


@dataclass(kw_only=True)
class Arrays:
    """What a `PathIntegral` fills while it runs; shapes as in ``layer.Conductance``."""

    activity: FloatArray  # (n, B)
    signed: FloatArray  # (n, B) sum of C
    signature: list[FloatArray]  # B x (n, C_b)
    absolute: list[FloatArray]
    neurons: list[FloatArray]  # B x (n, ...) or empty
    ends: FloatArray  # (n, 2) F at both ends of the path
    target: IntArray  # (n,)
    points: IntArray  # (n,)
    error: FloatArray  # (n,)
    differences: FloatArray  # (n, B, 2) between a rule and its coarser ones

    @classmethod
    def empty(cls, foot: Footprint, *, images: int, neurons: bool) -> Self:
        """Arrays for ``images`` images of a tower with ``foot``; ``neurons``: keep C of every neuron too."""
        n, count = images, len(foot.shapes)
        outputs = list(zip(foot.shapes, foot.layouts, strict=True))
        channels = [shape[layout.channels - 1] for shape, layout in outputs]
        own = [(shape[-1], *shape[:-1]) if layout.turned else shape for shape, layout in outputs]
        return cls(
            activity=np.zeros((n, count)),
            signed=np.zeros((n, count)),
            signature=[np.zeros((n, c)) for c in channels],
            absolute=[np.zeros((n, c)) for c in channels],
            neurons=[np.zeros((n, *shape)) for shape in own] if neurons else [],
            ends=np.zeros((n, 2)),
            target=np.zeros(n, dtype=np.int64),
            points=np.zeros(n, dtype=np.int64),
            error=np.full(n, np.nan),
            differences=np.full((n, count, 2), np.nan),
        )

    def gap(self, chosen: IntArray) -> FloatArray:
        """|sum C - (F(x) - F(0))| / sum |C| (m, B) of the ``chosen`` images: no true error is smaller."""
        total = np.diff(self.ends[chosen])  # (m, 1)
        activity = self.activity[chosen]
        gap: FloatArray = np.abs(self.signed[chosen] - total) / np.where(activity > 0, activity, 1.0)
        return gap

    def note(self, foot: Footprint, *, chosen: IntArray, block: int, sums: Sequence[Tensor]) -> None:
        """Note what C (m, F) of a rule and of its coarser ones says of ``block`` in the ``chosen`` images."""
        fine = sums[0]
        magnitude = fine.abs()
        shape, axis = foot.shapes[block], foot.layouts[block].channels
        others = [d for d in range(1, len(shape) + 1) if d != axis]
        maps = fine.reshape(len(chosen), *shape)
        signature = maps.sum(dim=others) if others else maps
        absolute = magnitude.reshape(len(chosen), *shape).sum(dim=others) if others else magnitude
        self.activity[chosen, block] = magnitude.sum(dim=1, dtype=torch.float64).cpu().numpy()
        self.signed[chosen, block] = signature.double().sum(dim=1).cpu().numpy()
        self.signature[block][chosen] = signature.double().cpu().numpy()
        self.absolute[block][chosen] = absolute.double().cpu().numpy()
        if self.neurons:
            own = maps.movedim(-1, 1) if foot.layouts[block].turned else maps
            self.neurons[block][chosen] = own.double().cpu().numpy()
        for level, difference in enumerate(differences(sums)):
            self.differences[chosen, block, level] = difference.cpu().numpy()


@dataclass(kw_only=True)
class PathIntegral:
    """One call of ``conductance``."""

    visual: nn.Module
    names: tuple[str, ...]  # (B,) blocks
    scalar: Scalar
    images: Tensor  # (n, C, H, W) on the tower's device
    rules: tuple[Rule, ...]  # to climb, each holding the points of the one before
    wanted: float | None  # error at which an image stops climbing; None: the first rule is final
    budget: int  # bytes that passes may take; halved when memory runs out
    keep_neurons: bool
    arrays: Arrays = field(init=False)
    foot: Footprint = field(init=False)
    order: torch.memory_format = field(init=False, default=torch.contiguous_format)

    def run(self) -> None:
        """Fill the arrays."""
        with self._sweep(tuple(range(len(self.names)))) as sweep:
            self.foot, self.order = measure(sweep, self.images[[0, -1]], self.scalar)
        self.arrays = Arrays.empty(self.foot, images=len(self.images), neurons=self.keep_neurons)
        with torch.no_grad():
            self._climb(np.arange(len(self.images)), 0, None)
        moved = (self.images.flatten(1).abs().amax(dim=1) > 0).cpu().numpy()
        check_ends(self.arrays.ends[moved], self.scalar)

    def _sweep(self, group: tuple[int, ...]) -> Sweep:
        return Sweep(self.visual, [self.names[index] for index in group])

    # climbing

    def _climb(self, chosen: IntArray, rung: int, known: dict[int, Part] | None) -> None:
        """Evaluate ``chosen`` images at rule ``rung``; ``known`` holds the even points where they were kept."""
        while True:
            size = self._images_at_once(rung, fresh=known is None)
            if len(chosen) > size:
                for at in range(0, len(chosen), size):
                    rows = torch.arange(at, min(at + size, len(chosen)), device=self.images.device)
                    piece = None if known is None else {b: part.pick(rows) for b, part in known.items()}
                    self._climb(chosen[at : at + size], rung, piece)
                return
            try:
                parts = self._evaluate(chosen, rung, known)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = error.with_traceback(None)  # its frames hold the tensors that must go now
            self._shrink(failed)
        late = self._unfinished(chosen, rung)
        if late.any():
            keep = torch.from_numpy(np.flatnonzero(late)).to(self.images.device)
            picked = None if parts is None else {b: part.pick(keep) for b, part in parts.items()}
            del parts, known
            self._climb(chosen[late], rung + 1, picked)

    def _shrink(self, failed: RuntimeError | MemoryError) -> None:
        if self.budget < self._batches.least:
            shape = tuple(self.images.shape[1:])
            raise ConductanceError(
                f"one image of {shape} does not fit into the memory of {self.images.device}; use a smaller tower or "
                f"another device, but got {failed}"
            ) from failed
        self.budget //= 2
        release_memory(self.images.device)

    def _unfinished(self, chosen: IntArray, rung: int) -> NDArray[np.bool_]:
        d1, d0 = self.arrays.differences[chosen].mean(axis=1).T
        self.arrays.error[chosen] = np.maximum(
            estimate_error(self.rules[rung].kind, d1, d0), self.arrays.gap(chosen).mean(axis=1)
        )
        self.arrays.points[chosen] = len(self.rules[rung].points)
        if self.wanted is None or rung + 1 == len(self.rules):
            return np.zeros(len(chosen), dtype=bool)
        return self.arrays.error[chosen] > self.wanted

    # memory

    @property
    def _batches(self) -> BatchSizes:
        return BatchSizes(foot=self.foot, budget=self.budget, passes=enough_for_passes(self.images.device))

    def _images_at_once(self, rung: int, *, fresh: bool) -> int:
        count = len(self.rules[rung].points)
        return self._batches.images(count, count if fresh else count // 2, keeps=self._keeps(rung))

    def _keeps(self, rung: int) -> bool:
        """Whether h and g are kept for the next rule: there is one, and they fit."""
        if self.wanted is None or rung + 1 >= len(self.rules):
            return False
        return self._batches.keeps(len(self.rules[rung + 1].points))

    # one rule

    def _evaluate(self, chosen: IntArray, rung: int, known: dict[int, Part] | None) -> dict[int, Part] | None:
        rule = self.rules[rung]
        alphas = rule.points if known is None else rule.points[1::2]
        keeps = self._keeps(rung)
        kept: dict[int, Part] = {}
        if rule.points[0] != 0 or rule.points[-1] != 1:
            self._ends_alone(chosen)

        def take(block: int, part: Part) -> None:
            if known is not None:
                old = known[block]
                part = Part(h=interleave(old.h, part.h), g=interleave(old.g, part.g))
            if keeps:
                kept[block] = part
            note(block, contract_levels(rule, part))

        def note(block: int, sums: Sequence[Tensor]) -> None:
            self.arrays.note(self.foot, chosen=chosen, block=block, sums=sums)

        if known is None and not keeps and rule.local and len(chosen) * len(alphas) > self._batches.rows():
            for group in self._batches.groups(RUNNING):
                self._running(chosen, rule, group, note)
            return None
        whole = [tuple(range(len(self.names)))]
        for group in whole if known is not None else self._batches.groups(2 * len(alphas)):
            self._points(chosen, alphas, group, take)
        return kept if keeps else None

    def _running(
        self, chosen: IntArray, rule: Rule, group: tuple[int, ...], note: Callable[[int, Sequence[Tensor]], None]
    ) -> None:
        """Sweep ``chosen`` images at the points of a local ``rule`` piece by piece, without keeping the pieces."""
        running = {block: RunningSum(rule) for block in group}

        def consume(first: int, block: int, part: Part) -> None:
            running[block].add(part, first)

        self._pieces(chosen, rule.points, group, consume)
        for block in group:
            note(block, running.pop(block).sums())

    def _points(
        self, chosen: IntArray, alphas: FloatArray, group: tuple[int, ...], take: Callable[[int, Part], None]
    ) -> None:
        """Sweep ``chosen`` images at ``alphas`` and hand on each block's h and g at all of them."""
        pieces: dict[int, list[Part]] = {block: [] for block in group}

        def consume(_first: int, block: int, part: Part) -> None:
            if part.h.shape[1] == len(alphas):
                take(block, part)
            else:
                pieces[block].insert(0, part)

        self._pieces(chosen, alphas, group, consume)
        for block in group:
            if parts := pieces.pop(block):
                take(block, Part(h=torch.cat([p.h for p in parts], 1), g=torch.cat([p.g for p in parts], 1)))

    def _pieces(
        self,
        chosen: IntArray,
        alphas: FloatArray,
        group: tuple[int, ...],
        consume: Callable[[int, int, Part], None],
    ) -> None:
        """Sweep ``chosen`` images at as many ``alphas`` at once as fit, from the image's end of the path.

        ``consume`` takes (number of the first alpha, block, h and g there).
        """
        m = len(chosen)
        size = even(len(alphas), max(1, self._batches.rows() // m))

        def deliver(first: int, count: int, position: int, h: Tensor, g: Tensor) -> None:
            block = group[position]
            consume(first, block, Part(h=self._flat(block, h, m, count), g=self._flat(block, g, m, count)))

        with self._sweep(group) as sweep:
            for stop in range(len(alphas), 0, -size):
                first = max(0, stop - size)
                piece = alphas[first:stop]
                sweep.run(self._rows(chosen, piece), self._value(chosen, piece), partial(deliver, first, len(piece)))

    def _rows(self, chosen: IntArray, alphas: FloatArray) -> Tensor:
        index = torch.from_numpy(chosen).to(self.images.device)
        x = self.images[index][:, None]
        a = torch.from_numpy(alphas.copy()).to(x)[:, None, None, None]
        return (a * x).flatten(0, 1).contiguous(memory_format=self.order)

    def _value(self, chosen: IntArray, alphas: FloatArray) -> Callable[[Tensor], Tensor]:
        """F of rows (images x alphas); notes F at both ends and the class at the image's end."""

        def value(embedding: Tensor) -> Tensor:
            m, count = len(chosen), len(alphas)
            if alphas[-1] == 1:
                last = embedding.detach().reshape(m, count, -1)[:, -1]
                self.arrays.target[chosen] = self.scalar.target(last).cpu().numpy()
            target = torch.from_numpy(self.arrays.target[chosen]).to(embedding.device)
            result = self.scalar.value(embedding, target.repeat_interleave(count))
            seen = result.detach().reshape(m, count)
            if alphas[0] == 0:
                self.arrays.ends[chosen, 0] = seen[:, 0].double().cpu().numpy()
            if alphas[-1] == 1:
                self.arrays.ends[chosen, 1] = seen[:, -1].double().cpu().numpy()
            return result

        return value

    def _ends_alone(self, chosen: IntArray) -> None:
        """F and class at the ends of the path for a rule without them."""
        ends = np.array([0.0, 1.0])
        with self._sweep((0,)) as sweep:
            sweep.forward(self._rows(chosen, ends), self._value(chosen, ends))

    def _flat(self, block: int, tensor: Tensor, m: int, count: int) -> Tensor:
        """(m, P, F) in the accumulation dtype."""
        return widened(to_rows(tensor, m * count, self.foot.layouts[block])).reshape(m, count, -1)
