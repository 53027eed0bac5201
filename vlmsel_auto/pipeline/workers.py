"""The engine that a search asks for: this process, processes of this machine, or a Ray cluster."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from vlmsel_auto.engines.engine import Channel, Engine
from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.engines.local import LocalEngine
from vlmsel_auto.engines.ray import RayEngine
from vlmsel_auto.errors import InputError

T = TypeVar("T")
_IMPORTED: Final = ("models.zoo", "study.dispatch", "tuning.finetune", "tuning.probe")  # by screenings and trials


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmJob:
    """What a worker does before its first screening or trial anyway, which takes seconds: import what they need.

    It tells something too: Ray starts the actor that takes what jobs tell in a process of its own.
    """

    def run(self, channel: Channel) -> None:
        """Import it."""
        for name in _IMPORTED:
            importlib.import_module(f"vlmsel_auto.{name}")
        channel.tell("warm")


def check_workers(*, workers: int | None, ray: str | None) -> None:
    """Refuse what no engine can be opened for.

    Raises:
        InputError: no worker, or both kinds at once.
    """
    if workers is not None and ray is not None:
        raise InputError(f"workers are processes of this machine or those of Ray, but got {workers=} and {ray=}")
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, or None for no further process, but got {workers!r}")


def open_meanwhile(work: Callable[[], T], *, workers: int | None, ray: str | None, device: str) -> tuple[T, Engine]:
    """Open the engine, as `open_engine` does, and do ``work`` while its workers begin with `WarmJob`.

    Raises:
        Exception: what ``work`` raises; the engine is then closed.
    """
    engine = open_engine(workers=workers, ray=ray, device=device)
    try:
        if not isinstance(engine, InProcess):
            for _ in range(engine.slots):
                engine.submit(WarmJob())
        return work(), engine
    except BaseException:  # also Ctrl+C: no worker outlives the call
        engine.close()
        raise


def open_engine(*, workers: int | None, ray: str | None, device: str) -> Engine:
    """The engine; as a context manager it ends its workers.

    Args:
        workers: processes of this machine; None: no further process.
        ray: address of a Ray cluster, "local" starts one here; None: no Ray.
        device: where models run; with "cuda" each worker gets a GPU, in turn where there are fewer.

    Raises:
        InputError: as `check_workers`, or there is no such cluster.
        MissingDependency: Ray is not installed.
    """
    check_workers(workers=workers, ray=ray)
    if ray is not None:
        return RayEngine(ray, gpus=device.startswith("cuda"))
    if workers is None:
        return InProcess()
    return LocalEngine(workers, gpus=_gpus() if device == "cuda" else ())


def _gpus() -> tuple[str, ...]:
    """Names of the GPUs that this process may use."""
    import torch

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(chosen.split(",")) if chosen else tuple(map(str, range(torch.cuda.device_count())))
