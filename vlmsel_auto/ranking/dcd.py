"""Directional conductance divergence (DCD): a family of divergences of a target task from source tasks.

After the idea of Yang et al. (arXiv 2602.01346), whose own form is in `dcd_authors`. Every formula below is our own and
was chosen on the mini zoo (docs/conductance.md).

Symbols (one candidate; B blocks, C_b channels, S sources):
    a[b]   activity, mean over images of sum |conductance|                z[b]  log a[b] minus its mean over the sources
    u[b]   channel signature, mean signed conductance a channel           w     block importance of the TARGET
    delta  how badly a source covers a block of the target, >= 0, 0 for the target itself
    DCD(T || S) = sum_b w_b(T) delta_b(T, S)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from vlmsel_auto.errors import InputError
from vlmsel_auto.ranking.divergence import TaskProfiles
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.records import FloatArray

Delta = Literal["signature", "channels", "uncovered", "share"]

_TINY = 1e-12
_ROUNDING = 1e-14  # differences of unit vectors below this are rounding


@dataclass(frozen=True, kw_only=True, slots=True)
class Dcd:
    """One member of the family, as a `Divergence`: >= 0, 0 for a source with the target's profile, not symmetric.

    Deltas: "uncovered" is max(0, z(T) - z(S)), "signature" 1 - cosine of the signed signatures, "channels" the KL
    divergence of the channels' shares in |conductance|, "share" the KL terms of the blocks' shares in the activity.
    """

    delta: Delta
    importance: Literal["softmax", "transport", "uniform"] = "softmax"
    importance_temperature: float = 1.0  # tau of w = softmax(z / tau)

    def __call__(self, targets: TaskProfiles, sources: TaskProfiles, used: NDArray[np.bool_]) -> FloatArray:
        """Divergences (T, S); InputError where the delta needs channels and the profiles have none."""
        deltas = _deltas(targets, sources, self.delta)
        if self.importance == "uniform":
            return np.asarray(deltas.mean(axis=2), dtype=np.float64)
        z_targets, reference = depth_corrected(targets.activity, sources=sources.activity, used=used)
        if self.importance == "softmax":
            weights = block_importance(z_targets, temperature=self.importance_temperature)
            return np.asarray(np.einsum("tsb,tb->ts", deltas, weights), dtype=np.float64)
        z_sources = _log(sources.activity)[None] - reference[:, None]
        found = np.full(used.shape, np.nan)
        for t, chosen in enumerate(used):
            found[t, chosen] = _transported(
                deltas[t, chosen], z_targets[t], z_sources[t, chosen], temperature=self.importance_temperature
            )
        return found


DEFAULT: Final = Dcd(delta="uncovered")  # best of the family on the mini zoo


def _log(activity: FloatArray) -> FloatArray:
    return np.log(np.maximum(activity, _TINY))


def depth_corrected(
    activity: FloatArray, *, sources: FloatArray, used: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Log activity minus its mean over the sources: sums of |conductance| fall with depth whatever the task is.

    Returns:
        z (T, B) of the targets and the means (T, B) over the used (T, S) sources that were taken off, in nats.
    """
    reference = used.astype(np.float64) @ _log(sources) / used.sum(axis=1, keepdims=True)
    return np.asarray(_log(activity) - reference, dtype=np.float64), np.asarray(reference, dtype=np.float64)


def block_importance(z: FloatArray, *, temperature: float) -> FloatArray:
    """Argmax over the simplex of <w, z> + tau H(w), which is softmax(z / tau); z (..., B), tau the temperature."""
    if temperature <= 0.0:
        raise InputError(f"temperature must be positive, but got {temperature!r}")
    return np.asarray(special.softmax(np.asarray(z, dtype=np.float64) / temperature, axis=-1), dtype=np.float64)


def transport_importance(
    z: FloatArray, cost: FloatArray, *, temperature: float, regularisation: float = 0.1
) -> FloatArray:
    """Importance of target blocks weighted by how badly the best entropic alignment with source blocks covers them.

    The softmax importance is the mass of the target's blocks, equal masses that of the source's; the plan is found by
    POT in the log domain, which stays finite where the plain iteration underflows.

    Args:
        z: (B,) depth-corrected activity of the target.
        cost: (B, B) cost of covering target block i by source block j, >= 0.
        temperature: of the softmax importance.
        regularisation: entropic regularisation in units of the median cost.

    Returns:
        (B, B) transport plan with rows summing to the importance.
    """
    import ot  # takes two seconds, and most callers never need it

    mass = block_importance(z, temperature=temperature)
    scale = float(np.median(cost)) or 1.0
    plan = ot.sinkhorn(
        mass, np.full(len(mass), 1.0 / len(mass)), cost / scale, regularisation, method="sinkhorn_log",
        numItermax=2000, stopThr=1e-9, warn=False,
    )  # fmt: skip
    # rows are made exact: what is reported is a share of each target block
    plan = np.asarray(plan, dtype=np.float64)
    return np.asarray(plan * (mass / np.maximum(plan.sum(axis=1), _TINY))[:, None], dtype=np.float64)


def _transported(deltas: FloatArray, z_target: FloatArray, z_sources: FloatArray, *, temperature: float) -> FloatArray:
    """Transport cost (S,) where covering block i by block j costs the gap in activity and in depth plus i's delta."""
    depth = np.linspace(0.0, 1.0, len(z_target))
    far = np.abs(depth[:, None] - depth[None, :])
    own = far + np.maximum(0.0, z_target[:, None] - z_target[None, :])
    base = float(np.sum(transport_importance(z_target, own, temperature=temperature) * own))
    values = []
    for delta, z in zip(deltas, z_sources, strict=True):
        cost = delta[:, None] + far + np.maximum(0.0, z_target[:, None] - z[None, :])
        plan = transport_importance(z_target, cost, temperature=temperature)
        # what covering the target by itself costs is taken off, so that DCD(T || T) = 0
        values.append(max(0.0, float(np.sum(plan * cost)) - base))
    return np.array(values)


def _deltas(targets: TaskProfiles, sources: TaskProfiles, delta: Delta) -> FloatArray:
    """(T, S, B) how badly each source covers each block of each target."""
    match delta:
        case "signature":
            return _of_channels(targets.signature, sources.signature, delta, blocks=targets.activity.shape[1])
        case "channels":
            return _of_channels(targets.absolute, sources.absolute, delta, blocks=targets.activity.shape[1])
        case "uncovered":
            return np.maximum(0.0, _log(targets.activity)[:, None, :] - _log(sources.activity))
        case "share":
            # terms of a Kullback-Leibler divergence between block shares, each made >= 0: p log(p / q) - p + q
            p, q = _share(targets.activity)[:, None, :], _share(sources.activity)[None, :, :]
            return np.asarray(np.maximum(0.0, special.kl_div(p, q)), dtype=np.float64)


def _of_channels(
    targets: Sequence[FloatArray], sources: Sequence[FloatArray], delta: Delta, *, blocks: int
) -> FloatArray:
    if len(targets) != blocks or len(sources) != blocks:
        raise InputError(f"delta {delta!r} needs the channels of each of the {blocks} blocks, but got {len(targets)}")
    measure = _cosine_distance if delta == "signature" else _kl
    return np.stack([measure(t, s) for t, s in zip(targets, sources, strict=True)], axis=2)


def _cosine_distance(targets: FloatArray, sources: FloatArray) -> FloatArray:
    """1 - cosine (T, S) of one block's signatures (T, C) and (S, C), in [0, 2]."""
    distance = 1.0 - unit_rows(targets) @ unit_rows(sources).T
    return np.asarray(np.where(distance > _ROUNDING, distance, 0.0), dtype=np.float64)


def _kl(targets: FloatArray, sources: FloatArray) -> FloatArray:
    """KL (T, S) of the targets' channel shares from the sources'."""
    p, q = _share(targets), _share(sources)
    value = -special.entr(p).sum(axis=1)[:, None] - p @ np.log(q).T
    return np.asarray(np.where(value > _ROUNDING, value, 0.0), dtype=np.float64)


def _share(rows: FloatArray) -> FloatArray:
    size = np.abs(rows) + _TINY
    return np.asarray(size / size.sum(axis=-1, keepdims=True), dtype=np.float64)
