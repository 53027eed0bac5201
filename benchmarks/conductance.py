"""Conductance of all blocks: ours against Captum's LayerConductance looped over the blocks, at equal error.

Everything runs side by side in one process, on the same images, tower, scalar and number of threads.

- Error: mean over blocks of sum |C - C*| / sum |C*| against 1,024 steps in float64 (trapezoid; the smooth towers'
  reference is the spectral rule with 129 points, which agrees with it far below the errors compared).
- Ours: fewest points whose error is at most the wanted one. Captum: its default method (gausslegendre); the steps for
  the wanted error follow from its measured 1/steps law, checked at CHECK steps, and its time from the measured time
  of one step (it is linear in steps, as the growth table shows).
- Random-weight towers have rough paths: there the wanted error is the one that Captum reaches with 64 steps.
- Floor: a bare forward + backward loop (to the pixels, no parameter gradients) over the same images and points, at
  the fastest of several batch sizes. ``fraction_of_floor`` is floor time / our time.

    python benchmarks/conductance.py --quick            mini zoo, under a minute on two cores
    python benchmarks/conductance.py --write FILE.json  all towers
    python benchmarks/conductance.py --device cuda      names the card in its JSON
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import open_clip
import torch
from captum.attr import LayerConductance
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from vlmsel_auto.conductance.conductance import Conductance, Integrator, choose_integrator, conductance, pick_device
from vlmsel_auto.conductance.quadrature import make_rule
from vlmsel_auto.conductance.scalars import Scalar, make_scalar
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.zoo import load as load_model
from vlmsel_auto.records import FloatArray

ZOO = Path(__file__).parents[1] / "vlmsel_auto" / "minizoo"
MINI = ("ViT-Mi-8-64.all-l", "ConvNeXt-Mi-64.all-m", "RN-Mi-64.all-m")
LARGE = ("ViT-B-32", "RN50", "convnext_base")
POINTS = (5, 7, 9, 11, 13, 15, 17, 21, 25, 33, 49, 65, 97, 129, 257)
CLASSES = ["flower", "temple", "dog", "car", "tree", "letter a", "digit 3", "red circle"]
CHECK = 64
Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One tower with its images and scalar, in float32 and in float64."""

    name: str
    visual: nn.Module
    images: Tensor
    scalar: Scalar
    exact_visual: nn.Module
    exact_scalar: Scalar

    @property
    def integrator(self) -> Integrator:
        """The rule that the tower gets by itself."""
        return choose_integrator(self.visual)


def _model(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = open_clip.create_model(f"local-dir:{ZOO / name}" if name in MINI else name)
    return model.eval().requires_grad_(False)


def _case(name: str, images: int, device: torch.device) -> Case:
    model, exact = _model(name), _model(name).double()
    visual, exact_visual = model.get_submodule("visual"), exact.get_submodule("visual")
    size: object = visual.image_size
    side = int(size[0] if isinstance(size, tuple | list) else str(size))
    x = _photographs(images, side)
    if name in MINI:
        text = load_model(resolve(name)[0]).text_features(CLASSES, ["a photo of {}."])
    else:
        width = open_clip.get_model_config(name)["embed_dim"]
        text = nn.functional.normalize(torch.randn(10, width, generator=torch.Generator().manual_seed(1)), dim=-1)
    scale = float(model.get_parameter("logit_scale").exp())
    return Case(
        name=name,
        visual=visual.to(device),
        images=x.to(device),
        scalar=make_scalar("margin", text_features=text.to(device), logit_scale=scale),
        exact_visual=exact_visual.to(device),
        exact_scalar=make_scalar("margin", text_features=text.to(device), logit_scale=scale),
    )


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


# what is compared


def ours(case: Case, points: int, *, neurons: bool = False, count: int | None = None) -> Conductance:
    """All blocks in one call."""
    images = case.images[:count]
    return conductance(
        case.visual, images, scalar=case.scalar, points=points, integrator=case.integrator, neurons=neurons
    )


def captum(case: Case, steps: int, blocks: Sequence[str], *, count: int | None = None) -> list[FloatArray]:
    """One call a block, Captum's default method, points swept in chunks of 512 rows at most."""
    images = case.images[:count]
    with torch.no_grad():
        target = case.scalar.target(case.visual(images))

    def forward(rows: Tensor, target: Tensor) -> Tensor:
        return case.scalar.value(case.visual(rows), target)

    found = []
    for block in blocks:
        oracle = LayerConductance(forward, case.visual.get_submodule(block))
        value = oracle.attribute(
            images,
            baselines=0.0,
            additional_forward_args=target,
            n_steps=steps,
            internal_batch_size=512 if len(images) * (steps + 1) > 512 else None,
        )
        found.append(value.detach().double().cpu().numpy())
    return found


def floor(case: Case, points: int, rows: int) -> None:
    """Bare forward and backward over the same images and points."""
    alphas = torch.from_numpy(make_rule(case.integrator, points - 1).points.copy()).to(case.images)
    target = torch.zeros(rows, dtype=torch.int64, device=case.images.device)
    path = (alphas[None, :, None, None, None] * case.images[:, None]).flatten(0, 1)
    for batch in torch.split(path, rows):
        pixels = batch.detach().requires_grad_()
        value = case.scalar.value(case.visual(pixels), target[: len(pixels)])
        torch.autograd.grad(value.sum(), pixels)


def reference(case: Case) -> Conductance:
    """C* in float64."""
    smooth = case.integrator == "spectral" and case.name in MINI
    return conductance(
        case.exact_visual,
        case.images.double(),
        scalar=case.exact_scalar,
        integrator="spectral" if smooth else "trapezoid",
        points=129 if smooth else 1025,
        neurons=True,
    )


def error_of(found: Sequence[FloatArray], true: Sequence[FloatArray]) -> float:
    """Mean over images and blocks of sum |C - C*| / sum |C*|."""
    errors = [
        np.abs(a[i] - b[i]).sum() / np.abs(b[i]).sum() for a, b in zip(found, true, strict=True) for i in range(len(a))
    ]
    return float(np.mean(errors))


# measuring


_CLOCK = [time.perf_counter]


def _seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        _wait(device)
        began = _CLOCK[0]()
        work()
        _wait(device)
        times.append(_CLOCK[0]() - began)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(work: Callable[[], object], device: torch.device) -> int | None:
    """Peak bytes of one run: exact on CUDA; on the CPU the growth of the process's high-water mark (a lower bound)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return int(torch.cuda.max_memory_allocated(device))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def compare(case: Case, wanted: Sequence[float | None], *, repeats: int) -> dict[str, Json]:
    """Time of both at equal error; ``wanted`` None: the error that Captum reaches with CHECK steps."""
    device = case.images.device
    true = reference(case)
    assert true.neurons is not None  # noqa: S101 - asked for
    low, high = CHECK // 2, CHECK
    errors = {low: error_of(captum(case, low, true.blocks), true.neurons)}
    kept: list[list[FloatArray]] = []
    one = _seconds(lambda: kept.append(captum(case, high, true.blocks)), device, repeats) / (high + 1)
    errors[high] = error_of(kept[-1], true.neurons)
    order = float(np.log2(errors[low] / errors[high]))
    found: list[Json] = []
    for target in wanted:
        limit = errors[high] if target is None else target
        points, reached = _fewest(case, limit, true.neurons)
        time_ours = _seconds(lambda p=points: ours(case, p), device, 2 * repeats)  # type: ignore[misc] # binds p now
        batches = sorted(
            {r for r in (26, 52, 104, 208) if r <= len(case.images) * points} or {len(case.images) * points}
        )
        time_floor = min(
            _seconds(lambda p=points, r=rows: floor(case, p, r), device, repeats)  # type: ignore[misc] # likewise
            for rows in batches
        )
        steps = round(high * errors[high] / limit)  # the 1/steps law
        found.append(
            {
                "error_wanted": limit,
                "error_ours": reached,
                "points": points,
                "seconds_ours": time_ours,
                "seconds_floor": time_floor,
                "captum_steps": steps,
                "seconds_captum": one * (steps + 1),
                "speedup_equal_error": one * (steps + 1) / time_ours,
                "fraction_of_floor": time_floor / time_ours,
            }
        )
    last = found[0]
    assert isinstance(last, dict)  # noqa: S101 - made above
    points = int(str(last["points"]))
    return {
        "integrator": case.integrator,
        "blocks": len(true.blocks),
        "images": len(case.images),
        "captum_errors": {str(n): e for n, e in errors.items()},
        "captum_order": order,
        "captum_seconds_per_step": one,
        "peak_bytes_ours": _peak(lambda: ours(case, points), device),
        "peak_bytes_captum": _peak(lambda: captum(case, high, true.blocks[:1]), device),
        "at_equal_error": found,
    }


def _fewest(case: Case, limit: float, true: Sequence[FloatArray]) -> tuple[int, float]:
    error = float("inf")
    for points in POINTS:
        found = ours(case, points, neurons=True).neurons
        assert found is not None  # noqa: S101 - asked for
        error = error_of(found, true)
        if error <= limit:
            break
    return points, error


def growth(case: Case, repeats: int) -> dict[str, Json]:
    """Seconds against blocks, images and points; Captum's against steps, for the law that ``compare`` uses."""
    device = case.images.device
    names = ours(case, 3).blocks
    n = len(case.images)

    def some(count: int) -> Callable[[], object]:
        return lambda: conductance(
            case.visual,
            case.images,
            scalar=case.scalar,
            points=9,
            integrator=case.integrator,
            blocks=(names[0], *names[len(names) - count + 1 :]),
        )

    return {
        "blocks": {str(k): _seconds(some(k), device, repeats) for k in sorted({1, len(names) // 2, len(names)})},
        "images": {
            str(k): _seconds(lambda k=k: ours(case, 9, count=k), device, repeats)  # type: ignore[misc] # binds k now
            for k in sorted({max(1, n // 4), max(1, n // 2), n})
        },
        "points": {
            str(p): _seconds(lambda p=p: ours(case, p), device, repeats)  # type: ignore[misc] # likewise
            for p in (5, 9, 17, 33)
        },
        "captum_steps": {
            str(s): _seconds(lambda s=s: captum(case, s, names[:1]), device, repeats)  # type: ignore[misc] # likewise
            for s in (8, 16, 32)
        },
    }


def _machine(device: torch.device) -> dict[str, Json]:
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": device.type, "name": card, "threads": torch.get_num_threads(), "torch": torch.__version__}


def main() -> None:
    """Measure and print; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two mini-zoo towers, one repeat")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a machine that others use")
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--towers", nargs="+", choices=MINI + LARGE)
    parser.add_argument("--write", type=Path, help="JSON file to write")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Captum and timm speak of their own deprecations
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.clock == "cpu":
        _CLOCK[0] = time.process_time
    device = pick_device(options.device)
    repeats = 1 if options.quick else 3
    results: dict[str, Json] = {}
    grown: dict[str, Json] = {}
    for name in options.towers or (MINI[:2] if options.quick else MINI + LARGE):
        images = 2 if options.quick else 8 if name in MINI else 1
        case = _case(name, images, device)
        smooth = name in MINI and case.integrator == "spectral"
        wanted = (0.01, 0.001) if smooth else (0.01,) if name in MINI else (None,)
        ours(case, 3)  # warm up
        results[name] = compare(case, wanted, repeats=repeats)
        if name in MINI[:1] or (not options.quick and name == "ViT-B-32"):
            grown[name] = growth(case, repeats)
        print(name, json.dumps(results[name]), flush=True)
    report: dict[str, Json] = {
        "benchmark": "conductance",
        "quick": options.quick,
        "clock": options.clock,
        "machine": _machine(device),
        "speedup_equal_error": _column(results, "speedup_equal_error"),
        "fraction_of_floor": _column(results, "fraction_of_floor"),
        "towers": results,
        "growth": grown,
    }
    if options.write is not None:
        options.write.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps(report))


def _column(results: dict[str, Json], key: str) -> dict[str, Json]:
    """``key`` of every tower: at the largest wanted error under the tower's name, at others as name@error."""
    column: dict[str, Json] = {}
    for name, result in results.items():
        assert isinstance(result, dict)  # noqa: S101 - made by compare
        lines = result["at_equal_error"]
        assert isinstance(lines, list)  # noqa: S101 - likewise
        for index, line in enumerate(lines):
            assert isinstance(line, dict)  # noqa: S101 - likewise
            column[name if index == 0 else f"{name}@{line['error_wanted']}"] = line[key]
    column["median"] = statistics.median(float(str(v)) for v in column.values())
    return column


if __name__ == "__main__":
    main()
