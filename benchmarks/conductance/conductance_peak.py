"""Peak memory of one piece of work in this process."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

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
