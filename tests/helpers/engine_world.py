"""Engines with workers, as tests open them, and how their workers are killed."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from vlmsel_auto.engines.engine import Engine
from vlmsel_auto.engines.local import LocalEngine


def ray_engine() -> Engine:
    pytest.importorskip("ray")
    from vlmsel_auto.engines.ray import RayEngine

    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # where Ray's workers find the jobs of tests
    return RayEngine(cpus=2)


APART: dict[str, Callable[[], Engine]] = {"local": lambda: LocalEngine(2), "ray": ray_engine}


def kill_a_worker() -> int | None:
    """Kill one that is at work, of either engine; None: there was none."""
    for process in psutil.Process().children(recursive=True):
        line = " ".join(process.cmdline())
        if "ray::work" in line or "loky.backend.popen_loky_posix" in line or "-m joblib" in line:
            os.kill(process.pid, signal.SIGKILL)
            return process.pid
    return None
