"""What this machine can do, measured in under two seconds, and how long it will take to embed images.

A tower's time is that of its operations plus that of writing their results: seconds = operations / speed + bytes /
bandwidth (the two limits of the roofline model, Williams, Waterman & Patterson 2009, added instead of the larger one
taken: our own choice). The first models that were timed correct the prediction for all others.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from vlmsel_auto.models.facts import Facts
from vlmsel_auto.process import nearest_there

if TYPE_CHECKING:
    import torch

_SECONDS: Final = 0.3  # of each of three measurements
_ONE_RUN: Final = 0.02  # seconds: shorter runs are made larger, so that starting them does not count
_LARGEST: Final = 2**12
_MOST_GAIN: Final = 3.0  # whole towers gained 1.1 to 6.3 (docs/results/real-models.md)
_CGROUP: Final = Path("/sys/fs/cgroup")  # where Linux says what a container may take

_Work: TypeAlias = tuple[Callable[[], object], float]  # a piece of work, and how much it is


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What there is to compute with now."""

    device: str  # "cpu", "cuda (NVIDIA H100)", "mps"
    cores: int  # that this process may use
    memory_bytes: int  # free: of the device where it has its own, else of the machine
    disk_bytes: int  # free where the hub's cache lies
    flops_per_second: float  # of products and convolutions in float32
    bytes_per_second: float  # of results written by operations that do little else
    correction: float = 1.0  # measured over predicted seconds, by `corrected`
    bfloat16_gain: float = 1.0  # how much sooner screenings are expected to embed in bfloat16; 1: no units for it


def measure(device: str = "auto", *, cache: Path) -> Machine:
    """Measure this machine; takes a second or two, and torch is imported.

    Args:
        device: as for `vlmsel_auto.models.device.pick_device`.
        cache: folder that downloads go to; it need not exist yet.

    Raises:
        InputError: there is no such device here.
    """
    import joblib
    import psutil
    import torch

    from vlmsel_auto.models.device import pick_device

    target = pick_device(device)
    with torch.inference_mode():
        product, convolution, writing = (_rate(make, target) for make in (_product, _convolution, _writing))
    is_cuda = target.type == "cuda"
    return Machine(
        device=f"cuda ({torch.cuda.get_device_name(target)})" if is_cuda else target.type,
        cores=joblib.cpu_count(),
        memory_bytes=free_memory(target),
        disk_bytes=psutil.disk_usage(str(nearest_there(cache))).free,
        flops_per_second=2 / (1 / product + 1 / convolution),
        bytes_per_second=writing,
        bfloat16_gain=_bfloat16_gain(target, product),
    )


def _bfloat16_gain(device: torch.device, product: float) -> float:
    """Products gain more than whole towers, which also read, write and normalise."""
    import torch

    from vlmsel_auto.models.precision import has_bfloat16_units

    if not has_bfloat16_units(device):
        return 1.0
    with torch.inference_mode():
        quick = _rate(partial(_product, dtype=torch.bfloat16), device)
    return min(_MOST_GAIN, max(1.0, quick / product))


def embedding_seconds(facts: Facts, *, images: int, machine: Machine) -> float | None:
    """Predicted seconds to embed decoded images in batches; None where the tower's operations are not known."""
    if facts.flops is None:
        return None
    of_one = facts.flops / machine.flops_per_second + (facts.written or 0) / machine.bytes_per_second
    return machine.correction * images * of_one


def screening_embedding_seconds(facts: Facts, *, images: int, machine: Machine) -> float | None:
    """The same for a screening, which embeds in bfloat16 where that is sooner (`vlmsel_auto.models.precision`)."""
    seconds = embedding_seconds(facts, images=images, machine=machine)
    return None if seconds is None else seconds / machine.bfloat16_gain


def corrected(machine: Machine, seen: Sequence[tuple[Facts, float]]) -> Machine:
    """The machine as models show it that took so many seconds an image: the median of measured over predicted seconds.

    Only models whose operations are known count; without any, the machine is returned as it is.
    """
    plain = replace(machine, correction=1.0)
    predicted = [(seconds, embedding_seconds(facts, images=1, machine=plain)) for facts, seconds in seen]
    ratios = [seconds / expected for seconds, expected in predicted if expected and seconds > 0]
    return replace(machine, correction=statistics.median(ratios)) if ratios else machine


def _rate(make: Callable[[int, torch.device], _Work], device: torch.device) -> float:
    """Amount of work a second in the fastest of several runs: the others were disturbed by something else."""
    size, best = 1, 0.0
    work, amount = make(size, device)
    work()  # threads and kernels start
    end = time.perf_counter() + _SECONDS
    while not best or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        _wait(device)
        seconds = time.perf_counter() - start
        best = max(best, amount / seconds)
        if seconds < _ONE_RUN and size < _LARGEST:
            size *= 2
            work, amount = make(size, device)
    return best


def _product(size: int, device: torch.device, *, dtype: torch.dtype | None = None) -> _Work:
    """The widest product of a ViT-B/32 for ``size`` images; float32 where no ``dtype`` is named."""
    import torch

    tokens = torch.ones(50 * size, 768, device=device, dtype=dtype)
    weights = torch.ones(768, 3072, device=device, dtype=dtype)
    return lambda: tokens @ weights, 2.0 * tokens.numel() * 3072


def _convolution(size: int, device: torch.device) -> _Work:
    """A convolution of a ResNet-50's first stage for ``size`` images."""
    import torch

    maps, kernel = torch.ones(size, 64, 56, 56, device=device), torch.ones(64, 64, 3, 3, device=device)
    return lambda: torch.conv2d(maps, kernel, padding=1), 2.0 * maps.numel() * 64 * 9


def _writing(size: int, device: torch.device) -> _Work:
    """An activation and an addition in a ViT-B/32 for ``size`` images, each of which writes a result."""
    import torch

    hidden = torch.ones(50 * size, 3072, device=device)
    return lambda: torch.nn.functional.gelu(hidden) + hidden, 2.0 * hidden.nbytes


def _wait(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take: of the device where it has its own, else of the machine."""
    import psutil
    import torch

    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return _free_memory(psutil.virtual_memory().available)


def _free_memory(available: int, *, folder: Path = _CGROUP) -> int:
    """What the system has, or what a container's limit leaves."""
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(available, max(0, int(limit) - int(used)))
    except (OSError, ValueError):  # no such limit ("max"), or another system
        return available
