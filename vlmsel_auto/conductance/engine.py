"""The machinery behind ``conductance``: chunks, nested rules, reduction over neurons.

A chunk of images is swept at all points of a rule. Each block's h and dF/dh (m, P, F) are contracted at once with the
rule's matrix, C = sum_kj A[k, j] g[k] h[j], and with those of the coarser rules, which give the error. Images whose
error is too large climb to the rule of twice as many intervals; only its new points are evaluated as long as h and g
fit into memory. Where they do not fit for one image, the blocks are swept in groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlmsel_auto.conductance.arrays import Arrays
from vlmsel_auto.conductance.blocks import to_rows
from vlmsel_auto.conductance.contraction import Part, estimate_error, interleave
from vlmsel_auto.conductance.memory import is_out_of_memory, release
from vlmsel_auto.conductance.plan import Plan
from vlmsel_auto.conductance.quadrature import Rule
from vlmsel_auto.conductance.scalars import Scalar
from vlmsel_auto.conductance.sweep import Footprint, Sweep, measure
from vlmsel_auto.errors import ConductanceError
from vlmsel_auto.records import FloatArray, IntArray

__all__ = ["Engine"]

_CONSTANT = 1e-5  # relative change of F below which it counts as constant; float32 noise is 1e-6


@dataclass(kw_only=True)
class Engine:
    """One call of ``conductance``.

    Attributes:
        visual: tower, checked.
        names: (B,) blocks.
        scalar: F.
        images: (n, C, H, W) on the tower's device.
        start: (1 or n, C, H, W) baseline.
        rules: rules to climb, each holding the points of the one before.
        wanted: error at which an image stops climbing; None: the first rule is final.
        precision: autocast dtype or None.
        compiled: compile blocks.
        budget: bytes that passes may take; halved when memory runs out.
        keep_neurons: fill ``Arrays.neurons``.
    """

    visual: nn.Module
    names: tuple[str, ...]
    scalar: Scalar
    images: Tensor
    start: Tensor
    rules: tuple[Rule, ...]
    wanted: float | None
    precision: torch.dtype | None
    compiled: bool
    budget: int
    keep_neurons: bool
    arrays: Arrays = field(init=False)
    foot: Footprint = field(init=False)

    def run(self) -> Arrays:
        """Fill and return the arrays."""
        self._measure()
        self.arrays = Arrays.empty(self.foot, images=len(self.images), neurons=self.keep_neurons)
        with torch.no_grad():
            self._climb(np.arange(len(self.images)), 0, None)
        self._check_constant()
        return self.arrays

    def _measure(self) -> None:
        """Probe two rows: memory, shapes, and whether F is constant by construction."""
        probe = self.images[[0, -1]]

        def value(embedding: Tensor) -> Tensor:
            result = self.scalar.value(embedding, self.scalar.target(embedding.detach()))
            if result.requires_grad:
                (slope,) = torch.autograd.grad(result.sum(), embedding, retain_graph=True)
                seen = result.detach()
                if not bool(torch.isfinite(seen).all()):
                    raise ConductanceError(f"the scalar {self.scalar.name!r} must be finite, but got {seen.tolist()}")
                if float(slope.norm() * embedding.detach().norm()) <= _CONSTANT * float(seen.abs().sum()):
                    raise ConductanceError(_constant_message(self.scalar.name, float(seen[0])))
            return result

        with self._sweep(tuple(range(len(self.names)))) as sweep:
            self.foot = measure(sweep, probe, value, _declared_layout(self.visual))

    def _sweep(self, group: tuple[int, ...]) -> Sweep:
        names = [self.names[index] for index in group]
        return Sweep(self.visual, names, precision=self.precision, compiled=self.compiled)

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
        if self.budget < self._plan.least:
            shape = tuple(self.images.shape[1:])
            raise ConductanceError(
                f"one image of {shape} does not fit into the memory of {self.images.device}; use a smaller tower or "
                f"another device, but got {failed}"
            ) from failed
        self.budget //= 2
        release(self.images.device)

    def _unfinished(self, chosen: IntArray, rung: int) -> NDArray[np.bool_]:
        d1, d0 = self.arrays.differences[chosen].mean(axis=1).T
        self.arrays.error[chosen] = estimate_error(self.rules[rung].kind, d1, d0)
        self.arrays.points[chosen] = len(self.rules[rung].points)
        if self.wanted is None or rung + 1 == len(self.rules):
            return np.zeros(len(chosen), dtype=bool)
        return self.arrays.error[chosen] > self.wanted

    # memory

    @property
    def _plan(self) -> Plan:
        return Plan(foot=self.foot, budget=self.budget)

    def _images_at_once(self, rung: int, *, fresh: bool) -> int:
        count = len(self.rules[rung].points)
        return self._plan.images(count, count if fresh else count // 2, keeps=self._keeps(rung))

    def _keeps(self, rung: int) -> bool:
        """Whether h and g are kept for the next rule: there is one, and they fit."""
        if self.wanted is None or rung + 1 >= len(self.rules):
            return False
        return self._plan.keeps(len(self.rules[rung + 1].points))

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
            self.arrays.reduce(self.foot, chosen=chosen, block=block, rule=rule, part=part)

        whole = [tuple(range(len(self.names)))]
        for group in whole if known is not None else self._plan.groups(len(rule.points)):
            self._points(chosen, alphas, group, take)
        return kept if keeps else None

    def _points(
        self, chosen: IntArray, alphas: FloatArray, group: tuple[int, ...], take: Callable[[int, Part], None]
    ) -> None:
        """Sweep ``chosen`` images at ``alphas``, in pieces from the image's end of the path where they don't fit."""
        size = max(1, self._plan.rows() // len(chosen))
        stops = range(len(alphas), 0, -size)
        pieces: dict[int, list[Part]] = {block: [] for block in group}

        def consume(count: int, position: int, h: Tensor, g: Tensor) -> None:
            block = group[position]
            part = Part(h=self._flat(block, h, len(chosen), count), g=self._flat(block, g, len(chosen), count))
            if len(stops) == 1:
                take(block, part)
            else:
                pieces[block].append(part)

        with self._sweep(group) as sweep:
            for stop in stops:
                piece = alphas[max(0, stop - size) : stop]
                sweep.run(self._rows(chosen, piece), self._value(chosen, piece), partial(consume, len(piece)))
        if len(stops) > 1:
            for block in group:
                parts = pieces.pop(block)[::-1]
                take(block, Part(h=torch.cat([p.h for p in parts], 1), g=torch.cat([p.g for p in parts], 1)))

    def _rows(self, chosen: IntArray, alphas: FloatArray) -> Tensor:
        index = torch.from_numpy(chosen).to(self.images.device)
        x = self.images[index][:, None]
        x0 = (self.start if len(self.start) == 1 else self.start[index])[:, None]
        a = torch.from_numpy(alphas.copy()).to(x)[:, None, None, None]
        return (x0 + a * (x - x0)).flatten(0, 1)

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

    @staticmethod
    def _wide(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor

    def _flat(self, block: int, tensor: Tensor, m: int, count: int) -> Tensor:
        """(m, P, F) in the accumulation dtype."""
        rows = to_rows(tensor, m * count, self.foot.layouts[block])
        return self._wide(rows).reshape(m, count, -1)

    def _check_constant(self) -> None:
        ends = self.arrays.ends
        moved = ((self.images - self.start).flatten(1).abs().amax(dim=1) > 0).cpu().numpy()
        if moved.any() and (np.abs(ends[moved, 1] - ends[moved, 0]) <= _CONSTANT * np.abs(ends[moved]).max()).all():
            raise ConductanceError(_constant_message(self.scalar.name, float(ends[moved][0, 1])))


def _declared_layout(visual: nn.Module) -> str | None:
    """NHWC or NCHW where the tower declares the layout of its maps (timm), else None."""
    declared = getattr(getattr(visual, "trunk", visual), "output_fmt", None)
    return None if declared is None else str(getattr(declared, "value", declared))


def _constant_message(name: str, value: float) -> str:
    return (
        f"the scalar {name!r} is constant along the path, so it has no conductance; use the margin, or the norm of the "
        f"UNNORMALISED embedding, but got F = {value:.6g} everywhere"
    )
