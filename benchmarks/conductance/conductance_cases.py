"""What conductance.py compares: towers with images and scalar, the ways to their conductance, and their peak memory."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import open_clip
import torch
from captum.attr import LayerConductance
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from vlmsel_auto.conductance.layer import Conductance, Integrator, choose_integrator, conductance
from vlmsel_auto.conductance.quadrature import make_rule
from vlmsel_auto.conductance.scalars import Scalar, make_scalar
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.zoo import load as load_model
from vlmsel_auto.records import FloatArray

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that ``work`` takes beyond what is held before it: exact on CUDA; resident memory on Linux; else None.

    On Linux freed memory is given back first and the high-water mark is reset, so that earlier work does not hide it.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device)) - before
    if sys.platform != "linux":
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
    try:
        _CLEAR.write_text("5", "ascii")  # resets VmHWM, see proc(5)
    except OSError:
        return None
    before = _kib("VmRSS")
    work()
    return 1024 * (_kib("VmHWM") - before)


def _kib(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text("ascii"), re.MULTILINE)
    assert found is not None  # noqa: S101 - proc(5) has both
    return int(found[1])


ZOO = Path(__file__).parents[2] / "vlmsel_auto" / "minizoo"
MINI = ("ViT-Mi-8-64.all-l", "ConvNeXt-Mi-64.all-m", "RN-Mi-64.all-m")
LARGE = ("ViT-B-32", "RN50", "convnext_base")
CLASSES = ["flower", "temple", "dog", "car", "tree", "letter a", "digit 3", "red circle"]
_SAMPLED = 4  # blocks of a large tower that Captum runs through
_LARGE_ERROR, _LARGE_POINTS = 1e-4, 513  # of the large towers' references: smooth ones, those with kinks


@dataclass(frozen=True, kw_only=True)
class Case:
    """One tower with its images and scalar.

    Attributes:
        name: architecture or member of the mini zoo.
        visual: float32 tower.
        images: (n, C, H, W) normalised.
        scalar: margin.
        blocks: all blocks.
        compared: positions of the blocks whose errors are compared and that Captum runs through: all in the mini zoo,
            evenly spread ones of large towers.
    """

    name: str
    visual: nn.Module
    images: Tensor
    scalar: Scalar
    blocks: tuple[str, ...]
    compared: tuple[int, ...]

    @property
    def integrator(self) -> Integrator:
        """The rule that the tower gets by itself."""
        return choose_integrator(self.visual)

    @property
    def smooth(self) -> bool:
        """A mini-zoo member without kinks."""
        return is_member(self.name) and self.integrator == "spectral"


def is_member(name: str) -> bool:
    """Whether ``name`` is a member of the mini zoo."""
    return (ZOO / name).is_dir()


def make_case(name: str, images: int, device: torch.device) -> Case:
    """Case ``name`` with ``images`` photographs."""
    model = _model(name)
    visual = model.get_submodule("visual")
    size: object = visual.image_size
    side = int(size[0] if isinstance(size, tuple | list) else str(size))
    if is_member(name):
        text = load_model(resolve(name)[0]).text_features(CLASSES, ["a photo of {}."])
    else:
        width = open_clip.get_model_config(name)["embed_dim"]
        text = nn.functional.normalize(torch.randn(10, width, generator=torch.Generator().manual_seed(1)), dim=-1)
    scale = float(model.get_parameter("logit_scale").exp())
    visual, x = visual.to(device), _photographs(images, side).to(device)
    scalar = make_scalar("margin", text_features=text.to(device), logit_scale=scale)
    blocks = conductance(visual, x[:1], scalar=scalar, points=3).blocks
    count = len(blocks) if is_member(name) else _SAMPLED
    return Case(
        name=name,
        visual=visual,
        images=x,
        scalar=scalar,
        blocks=blocks,
        compared=tuple(int((k + 0.5) * len(blocks) / count) for k in range(count)),
    )


def with_images(case: Case, count: int) -> Case:
    """The same tower and scalar on ``count`` photographs, the first of them those of ``case``."""
    images = _photographs(count, case.images.shape[-1]).to(case.images.device)
    return replace(case, images=images)


def _model(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = open_clip.create_model(f"local-dir:{ZOO / name}" if is_member(name) else name)
    if name.startswith("convnext"):  # without biases every layer norm is singular at the baseline, and C diverges
        for parameter in model.get_submodule("visual").parameters():
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def _photographs(count: int, side: int) -> Tensor:
    """Normalised square crops (count, 3, side, side) of the two photographs that scikit-learn ships."""
    photographs = [torch.from_numpy(p.copy()).permute(2, 0, 1) / 127.5 - 1 for p in load_sample_images().images]
    rng = np.random.default_rng(0)
    crops = []
    for index in range(count):
        photograph = photographs[index % 2]
        width = int(rng.integers(200, 400))
        top, left = (int(rng.integers(0, n - width)) for n in photograph.shape[1:])
        crop = photograph[None, :, top : top + width, left : left + width]
        crops.append(nn.functional.interpolate(crop, size=(side, side), mode="bicubic", antialias=True))
    return torch.cat(crops)


def ours(case: Case, points: int, *, neurons: bool = False, count: int | None = None) -> Conductance:
    """All blocks in one call at a fixed number of points, odd or even."""
    rule = make_rule("spectral" if case.integrator == "spectral" else "trapezoid", points - 1)
    images = case.images[:count]
    return conductance(case.visual, images, scalar=case.scalar, integrator=rule, blocks=case.blocks, neurons=neurons)


def captum(case: Case, steps: int, *, blocks: int | None = None, count: int | None = None) -> list[FloatArray]:
    """Captum's default method, one call for each compared block (the first ``blocks`` of them), 512 rows at once."""
    images = case.images[:count]
    with torch.no_grad():
        target = case.scalar.target(case.visual(images))

    def forward(rows: Tensor, target: Tensor) -> Tensor:
        return case.scalar.value(case.visual(rows), target)

    found = []
    most = 512 if is_member(case.name) else 64
    for position in case.compared[:blocks]:
        oracle = LayerConductance(forward, case.visual.get_submodule(case.blocks[position]))
        value = oracle.attribute(
            images,
            baselines=0.0,
            additional_forward_args=target,
            n_steps=steps,
            internal_batch_size=most if len(images) * (steps + 1) > most else None,
        )
        found.append(value.detach().double().cpu().numpy())
    return found


def floor(case: Case, points: int, rows: int, order: torch.memory_format = torch.contiguous_format) -> None:
    """Bare forward and backward (to the pixels, no parameter gradients) over the same images and points."""
    alphas = torch.linspace(0, 1, points).to(case.images)
    target = torch.zeros(rows, dtype=torch.int64, device=case.images.device)
    path = (alphas[None, :, None, None, None] * case.images[:, None]).flatten(0, 1).contiguous(memory_format=order)
    for batch in torch.split(path, rows):
        pixels = batch.detach().requires_grad_()
        value = case.scalar.value(case.visual(pixels), target[: len(pixels)])
        torch.autograd.grad(value.sum(), pixels)


def reference(case: Case) -> Conductance:
    """C*: the mini zoo's in float64 with 1,025 trapezoid points where there are kinks and 129 spectral ones elsewhere.

    Large towers': float32 (rounding is far below the errors compared), 513 trapezoid points or as many spectral ones as
    an error of _LARGE_ERROR takes; ``Conductance.error`` says what was reached.
    """
    if is_member(case.name):
        exact = _model(case.name).get_submodule("visual").double().to(case.images.device)
        return conductance(
            exact,
            case.images.double(),
            scalar=case.scalar,
            points=129 if case.smooth else 1025,
            neurons=True,
        )
    return conductance(
        case.visual,
        case.images,
        scalar=case.scalar,
        error=_LARGE_ERROR,
        points=None if case.integrator == "spectral" else _LARGE_POINTS,
        max_points=257,
        blocks=case.blocks,
        neurons=True,
    )


def error_of(found: Sequence[FloatArray], true: Sequence[FloatArray]) -> float:
    """Mean over images and blocks of sum |C - C*| / sum |C*|."""
    errors = [
        np.abs(a[i] - b[i]).sum() / np.abs(b[i]).sum() for a, b in zip(found, true, strict=True) for i in range(len(a))
    ]
    return float(np.mean(errors))
