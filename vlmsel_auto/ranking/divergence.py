"""Directional conductance divergence (DCD) of a target task to source tasks, as one candidate sees them.

Idea: Yang et al., "Model Specific Task Similarity for Vision Language Model Selection via Layer Conductance"
(arXiv 2602.01346). Only its abstract and outline could be read: every formula below is our own choice, tried on the
mini zoo (docs/ranking.md), and no number of the paper is claimed.

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
from scipy import special

from vlmsel_auto.errors import InputError
from vlmsel_auto.records import FloatArray

__all__ = [
    "DEFAULT",
    "PAPER",
    "DcdForm",
    "Delta",
    "block_importance",
    "dcd",
    "depth_corrected",
    "pairwise_dcd",
    "transport_importance",
]

Delta = Literal["signature", "channels", "uncovered", "share"]
_TINY = 1e-12
_ROUNDING = 1e-14  # differences of unit vectors below this are rounding


@dataclass(frozen=True, kw_only=True, slots=True)
class DcdForm:
    """One member of the DCD family."""

    scalar: Literal["margin", "norm"]  # F whose conductance is compared
    delta: Delta  # see `dcd`
    importance: Literal["softmax", "transport", "uniform"] = "softmax"
    importance_temperature: float = 1.0  # tau of w = softmax(z / tau)
    weight_temperature: float = 0.1  # t of the source weights of DCD alone, in units of the spread of the divergences
    habit_temperature: float = 0.3  # t of the sources of habits: what is left beyond a trend wants more of them
    pooled: float = 0.0  # 0: every candidate has its own weights; 1: all share the mean of their divergences


DEFAULT: Final = DcdForm(scalar="margin", delta="uncovered")  # best of the family on the mini zoo
PAPER: Final = DcdForm(scalar="norm", delta="share", weight_temperature=1.0)  # as far as the outline tells


def depth_corrected(activity: FloatArray, *, reference: FloatArray) -> FloatArray:
    """Log activity minus its mean over the reference tasks: sums of |C| fall with depth whatever the task is.

    Args:
        activity: (..., B) positive activities.
        reference: (S, B) activities of the source tasks.

    Returns:
        z (..., B), in nats.
    """
    level = np.log(np.maximum(reference, _TINY)).mean(axis=0)
    return np.asarray(np.log(np.maximum(activity, _TINY)) - level, dtype=np.float64)


def block_importance(z: FloatArray, *, temperature: float) -> FloatArray:
    """Argmax over the simplex of <w, z> + tau H(w), which is softmax(z / tau).

    Args:
        z: (B,) depth-corrected activity.
        temperature: tau > 0; large values give equal weights.

    Returns:
        (B,) weights that sum to 1.
    """
    if temperature <= 0.0:
        raise InputError(f"temperature must be positive, but got {temperature!r}")
    return np.asarray(special.softmax(np.asarray(z, dtype=np.float64) / temperature), dtype=np.float64)


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
    scale = float(np.median(cost))
    if scale <= 0.0:
        scale = 1.0
    plan = ot.sinkhorn(
        mass, np.full(len(mass), 1.0 / len(mass)), cost / scale, regularisation, method="sinkhorn_log",
        numItermax=2000, stopThr=1e-9, warn=False,
    )  # fmt: skip
    # rows are made exact: what is reported is a share of each target block
    plan = np.asarray(plan, dtype=np.float64)
    return np.asarray(plan * (mass / np.maximum(plan.sum(axis=1), _TINY))[:, None], dtype=np.float64)


def _unit(rows: FloatArray) -> FloatArray:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(length, _TINY), dtype=np.float64)


def _share(rows: FloatArray) -> FloatArray:
    size = np.abs(rows) + _TINY
    return np.asarray(size / size.sum(axis=-1, keepdims=True), dtype=np.float64)


def _cosine_distance(targets: FloatArray, sources: FloatArray) -> FloatArray:
    """1 - cosine (T, S) of one block's signatures (T, C) and (S, C), in [0, 2]."""
    distance = 1.0 - _unit(targets) @ _unit(sources).T
    return np.asarray(np.where(distance > _ROUNDING, distance, 0.0), dtype=np.float64)


def _kl(targets: FloatArray, sources: FloatArray) -> FloatArray:
    """KL (T, S) of the targets' channel shares from the sources'."""
    p, q = _share(targets), _share(sources)
    value = -special.entr(p).sum(axis=1)[:, None] - p @ np.log(q).T
    return np.asarray(np.where(value > _ROUNDING, value, 0.0), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """One side of the comparison: n tasks of one candidate."""

    activity: FloatArray  # (n, B)
    signature: tuple[FloatArray, ...]  # B arrays (n, C_b)


def _deltas(targets: _Side, sources: _Side, z_targets: FloatArray, z_sources: FloatArray, delta: Delta) -> FloatArray:
    """(T, S, B) how badly each source covers each block of each target; z are (T, B) and (T, S, B)."""
    match delta:
        case "signature" | "channels":
            measure = _cosine_distance if delta == "signature" else _kl
            pairs = zip(targets.signature, sources.signature, strict=True)
            return np.stack([measure(t, s) for t, s in pairs], axis=2)
        case "uncovered":
            return np.maximum(0.0, z_targets[:, None, :] - z_sources)
        case "share":
            # terms of a Kullback-Leibler divergence between block shares, each made >= 0: p log(p / q) - p + q
            p, q = _share(targets.activity)[:, None, :], _share(sources.activity)[None, :, :]
            return np.asarray(np.maximum(0.0, special.kl_div(p, q)), dtype=np.float64)


def _weigh(deltas: FloatArray, z_targets: FloatArray, z_sources: FloatArray, form: DcdForm) -> FloatArray:
    """DCD (T, S) from the deltas (T, S, B) and the importance of the target's blocks."""
    match form.importance:
        case "softmax":
            weights = np.stack([block_importance(z, temperature=form.importance_temperature) for z in z_targets])
            return np.asarray(np.einsum("tsb,tb->ts", deltas, weights), dtype=np.float64)
        case "uniform":
            return np.asarray(deltas.mean(axis=2), dtype=np.float64)
        case "transport":
            rows = zip(deltas, z_targets, z_sources, strict=True)
            return np.stack([_transported(d, zt, zs, temperature=form.importance_temperature) for d, zt, zs in rows])


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


def _check(activity: FloatArray, signature: Sequence[FloatArray], form: DcdForm) -> _Side:
    activity = np.asarray(activity, dtype=np.float64)
    if activity.ndim != 2:  # noqa: PLR2004 - (tasks, blocks)
        raise InputError(f"activity must be (tasks, blocks), but got the shape {activity.shape}")
    if form.delta in {"signature", "channels"} and len(signature) != activity.shape[1]:
        raise InputError(
            f"delta {form.delta!r} needs one signature for each of the {activity.shape[1]} blocks, "
            f"but got {len(signature)}"
        )
    return _Side(activity=activity, signature=tuple(np.asarray(one, dtype=np.float64) for one in signature))


def dcd(
    *,
    target_activity: FloatArray,
    source_activity: FloatArray,
    target_signature: Sequence[FloatArray] = (),
    source_signature: Sequence[FloatArray] = (),
    form: DcdForm = DEFAULT,
) -> FloatArray:
    """DCD of the target to every source for one candidate.

    Args:
        target_activity: (B,) of the target.
        source_activity: (S, B) of the sources.
        target_signature: B arrays (C_b,); needed by the deltas "signature" and "channels".
        source_signature: B arrays (S, C_b).
        form: delta "signature" is 1 - cosine of signed signatures, "channels" the KL divergence of their channel
            shares, "uncovered" max(0, z(T) - z(S)), "share" the KL terms of the block shares.

    Returns:
        (S,) divergences >= 0, 0 for a source with the target's own profile; not symmetric. NaN for sources without a
        profile.

    Raises:
        InputError: shapes do not fit.
    """
    target = _check(np.atleast_2d(target_activity), [np.atleast_2d(one) for one in target_signature], form)
    source = _check(source_activity, source_signature, form)
    if target.activity.shape[1] != source.activity.shape[1]:
        raise InputError(
            "target and sources must have the same blocks, "
            f"but got {target.activity.shape[1]} and {source.activity.shape[1]}"
        )
    known = np.asarray(np.isfinite(source.activity).all(axis=1))
    result = np.full(len(known), np.nan)
    if not known.any() or not np.isfinite(target.activity).all():
        return result
    sources = _Side(activity=source.activity[known], signature=tuple(one[known] for one in source.signature))
    z_target = depth_corrected(target.activity, reference=sources.activity)
    z_sources = depth_corrected(sources.activity, reference=sources.activity)[None]
    deltas = _deltas(target, sources, z_target, z_sources, form.delta)
    result[known] = _weigh(deltas, z_target, z_sources, form)[0]
    return result


def pairwise_dcd(*, activity: FloatArray, signature: Sequence[FloatArray] = (), form: DcdForm = DEFAULT) -> FloatArray:
    """DCD between all tasks of one candidate: row T holds ``dcd`` of T against the others as sources.

    Args:
        activity: (S, B).
        signature: B arrays (S, C_b).
        form: see `dcd`.

    Returns:
        (S, S), [T, S] = DCD(T || S), NaN on the diagonal and where a profile is missing.

    Raises:
        InputError: shapes do not fit.
    """
    side = _check(activity, signature, form)
    n = len(side.activity)
    result = np.full((n, n), np.nan)
    known = np.flatnonzero(np.isfinite(side.activity).all(axis=1))
    if len(known) < 2:  # noqa: PLR2004 - a pair is needed
        return result
    kept = _Side(activity=side.activity[known], signature=tuple(one[known] for one in side.signature))
    logs = np.log(np.maximum(kept.activity, _TINY))
    reference = (logs.sum(axis=0) - logs) / (len(known) - 1)  # (T, B): each target is left out of its own reference
    z_targets = logs - reference
    z_sources = logs[None] - reference[:, None]
    values = _weigh(_deltas(kept, kept, z_targets, z_sources, form.delta), z_targets, z_sources, form)
    np.fill_diagonal(values, np.nan)
    result[np.ix_(known, known)] = values
    return result
