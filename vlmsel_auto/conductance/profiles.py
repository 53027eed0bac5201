"""Conductance profiles: computed once, kept by content, read back bit-equal.

Layout on disk: ``cache.Store`` entries, the arrays as safetensors, the rest as JSON with ``version``.
"""

from __future__ import annotations

import hashlib
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from vlmsel_auto.cache import Json, Store, digest
from vlmsel_auto.conductance.baselines import Baseline
from vlmsel_auto.conductance.conductance import Integrator, Precision, conductance
from vlmsel_auto.conductance.scalars import ScalarName, make_scalar
from vlmsel_auto.errors import ConductanceError
from vlmsel_auto.records import Profile

__all__ = ["VERSION", "ProfiledModel", "load", "profile", "profile_key", "save"]

VERSION = 1  # of the stored layout and of what the numbers mean; part of every key


class ProfiledModel(Protocol):
    """What profiling needs of a loaded model (zoo.LoadedModel has it)."""

    @property
    def visual(self) -> nn.Module:
        """Visual tower in eval mode."""
        ...

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine."""
        ...

    def normalise(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Uint8 (n, S, S, 3) -> normalised (n, 3, S, S) on the model's device."""
        ...


def profile(
    model: ProfiledModel,
    pixels: NDArray[np.uint8],
    *,
    text_features: Tensor | ArrayLike | None,
    candidate: str,
    task: str,
    scalar: ScalarName | None = None,
    class_index: int | None = None,
    integrator: Integrator = "auto",
    error: float = 0.02,
    points: int | None = None,
    max_points: int = 65,
    baseline: Baseline = "zeros",
    precision: Precision = "model",
    budget: int | None = None,
    store: Store | None = None,
) -> Profile:
    """Profile ``candidate`` on images of ``task``, or read it from ``store``.

    Args:
        model: loaded candidate.
        pixels: (n, S, S, 3) uint8 RGB in the candidate's own view.
        text_features: (K, D) unit-norm class weights; None: no class names.
        candidate: id kept in the profile.
        task: name kept in the profile.
        scalar: F; None: "margin" with text features, "norm" without.
        class_index: class of the scalar "logit".
        integrator: see ``conductance.conductance``; likewise the next six.
        error: wanted mean relative error per neuron.
        points: fixed number of points.
        max_points: where the search for ``error`` ends.
        baseline: start of the path.
        precision: of the passes.
        budget: bytes for the passes.
        store: cache; None: none.

    Raises:
        ConductanceError: bad pixels, or what ``conductance`` refuses.
    """
    pixels = _checked_pixels(pixels)
    text = None if text_features is None else torch.as_tensor(text_features).detach()
    name: ScalarName = scalar if scalar is not None else ("norm" if text is None else "margin")
    key = ""
    if store is not None:
        key = profile_key(
            model,
            pixels,
            text_features=text,
            names=[candidate, task, name, class_index],
            settings=[integrator, error, points, max_points, baseline, precision],
        )
        found = load(store, key)
        if found is not None:
            return found
    if text is not None:
        text = text.to(next(model.visual.parameters()).device)
    result = conductance(
        model.visual,
        model.normalise(pixels),
        scalar=make_scalar(name, text_features=text, logit_scale=model.logit_scale, class_index=class_index),
        integrator=integrator,
        error=error,
        points=points,
        max_points=max_points,
        baseline=baseline,
        precision=precision,
        budget=budget,
    )
    made = Profile(
        candidate=candidate,
        task=task,
        blocks=result.blocks,
        activity=result.activity,
        signature=result.signature,
        absolute=result.absolute,
        total=result.total,
        completeness_error=result.completeness_error,
        scalar=result.scalar,
        baseline=result.baseline,
        integrator=result.integrator,
        points=int(result.points.max()),
        error=float(result.error.mean()),
    )
    if store is not None:
        save(store, key, made)
    return made


def profile_key(
    model: ProfiledModel,
    pixels: NDArray[np.uint8],
    *,
    text_features: Tensor | None,
    names: list[Json],
    settings: list[Json],
) -> str:
    """Digest of everything that determines a profile: weights, pixels, class weights, names, settings, version."""
    weights = hashlib.sha256()
    for name, tensor in model.visual.state_dict().items():
        value = tensor.detach().cpu().contiguous()
        weights.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        weights.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    sample = model.normalise(np.stack([np.zeros_like(pixels[0]), np.full_like(pixels[0], 255)]))[:, :, 0, 0]
    text = None
    if text_features is not None:
        text = hashlib.sha256(np.ascontiguousarray(text_features.detach().cpu().double().numpy()).tobytes()).hexdigest()
    return digest(
        "profile",
        VERSION,
        weights.hexdigest(),
        type(model.visual).__name__,
        hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest(),
        list(pixels.shape),
        [float(v) for v in sample.flatten().tolist()],
        float(model.logit_scale),
        text,
        names,
        settings,
    )


def save(store: Store, key: str, made: Profile) -> None:
    """Keep a profile under ``key``."""
    arrays: dict[str, NDArray[np.generic]] = {
        "activity": made.activity,
        "total": made.total,
        "completeness_error": made.completeness_error,
    }
    for index in range(len(made.blocks)):
        arrays[f"signature.{index}"] = made.signature[index]
        arrays[f"absolute.{index}"] = made.absolute[index]
    record: dict[str, Json] = {
        "version": VERSION,
        "candidate": made.candidate,
        "task": made.task,
        "blocks": list(made.blocks),
        "scalar": made.scalar,
        "baseline": made.baseline,
        "integrator": made.integrator,
        "points": made.points,
        "error": made.error.hex(),  # exact, also NaN
    }
    store.put(key, arrays, record)


def load(store: Store, key: str) -> Profile | None:
    """The profile under ``key``, or None when it is absent, damaged or of another version."""
    entry = store.get(key)
    if entry is None:
        return None
    arrays, record = entry
    if record.get("version") != VERSION:
        return None
    try:
        blocks = tuple(str(name) for name in cast("list[Json]", record["blocks"]))
        count = range(len(blocks))
        return Profile(
            candidate=str(record["candidate"]),
            task=str(record["task"]),
            blocks=blocks,
            activity=arrays["activity"].astype(np.float64, copy=False),
            signature=tuple(arrays[f"signature.{i}"].astype(np.float64, copy=False) for i in count),
            absolute=tuple(arrays[f"absolute.{i}"].astype(np.float64, copy=False) for i in count),
            total=arrays["total"].astype(np.float64, copy=False),
            completeness_error=arrays["completeness_error"].astype(np.float64, copy=False),
            scalar=str(record["scalar"]),
            baseline=str(record["baseline"]),
            integrator=str(record["integrator"]),
            points=int(cast("int", record["points"])),
            error=float.fromhex(str(record["error"])),
        )
    except (KeyError, ValueError, TypeError):
        return None  # damaged: it is made again


def _checked_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3 or 0 in pixels.shape:  # noqa: PLR2004
        raise ConductanceError(f"pixels must be uint8 (n, side, side, 3), but got {pixels.dtype} {pixels.shape}")
    return pixels
