"""Conductance profiles: computed once, kept by content, read back bit-equal.

Layout on disk: ``cache.Store`` entries, the arrays as safetensors, the rest as JSON with ``version``. Provenance says
what a profile was made from (SHA-256 of weights, pixels and class weights) and with (versions, device, precision).
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
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

VERSION = 3  # of the stored layout and of what the numbers mean; part of every key


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
    contents = _contents(model, pixels, text)
    key = _key(
        contents,
        names=[candidate, task, name, class_index],
        settings=[integrator, error, points, max_points, baseline, precision],
    )
    found = None if store is None else load(store, key)
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
        wanted=None if points is not None else error,
        reached=result.reached,
        provenance=_provenance(contents, device=result.device, precision=precision),
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
    return _key(_contents(model, pixels, text_features), names=names, settings=settings)


def _key(contents: dict[str, str], *, names: list[Json], settings: list[Json]) -> str:
    return digest("profile", VERSION, dict(contents), names, settings)


def _contents(model: ProfiledModel, pixels: NDArray[np.uint8], text: Tensor | None) -> dict[str, str]:
    """What a profile is made from: digests of arrays, and the few numbers, exactly."""
    sample = model.normalise(np.stack([np.zeros_like(pixels[0]), np.full_like(pixels[0], 255)]))[:, :, 0, 0]
    words = None if text is None else text.detach().cpu().double().numpy()
    return {
        "tower": type(model.visual).__name__,
        "weights_sha256": _weights_digest(model.visual),
        "images": str(len(pixels)),
        "pixels_sha256": _array_digest(pixels),
        "normalisation": " ".join(float(v).hex() for v in sample.flatten().tolist()),
        "logit_scale": float(model.logit_scale).hex(),
        "class_weights_sha256": "none" if words is None else _array_digest(words),
    }


def _weights_digest(visual: nn.Module) -> str:
    weights = hashlib.sha256()
    for name, tensor in visual.state_dict().items():
        value = tensor.detach().cpu().contiguous()
        weights.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        weights.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return weights.hexdigest()


def _array_digest(values: NDArray[np.generic]) -> str:
    return hashlib.sha256(f"{values.shape}".encode() + np.ascontiguousarray(values).tobytes()).hexdigest()


def _provenance(contents: dict[str, str], *, device: str, precision: str) -> tuple[tuple[str, str], ...]:
    made_with = {
        "profile_version": str(VERSION),
        "vlmsel_auto": _package_version(),
        "torch": torch.__version__,
        "device": device,
        "precision": precision,
    }
    return tuple(sorted({**contents, **made_with}.items()))


def _package_version() -> str:
    try:
        return version("vlmsel-auto")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


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
        "wanted": None if made.wanted is None else made.wanted.hex(),
        "reached": made.reached,
        "provenance": dict(made.provenance),
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
            wanted=None if record["wanted"] is None else float.fromhex(str(record["wanted"])),
            reached=record["reached"] is True,
            provenance=tuple(sorted((n, str(v)) for n, v in cast("dict[str, Json]", record["provenance"]).items())),
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        return None  # damaged: it is made again


def _checked_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3 or 0 in pixels.shape:  # noqa: PLR2004
        raise ConductanceError(f"pixels must be uint8 (n, side, side, 3), but got {pixels.dtype} {pixels.shape}")
    return pixels
