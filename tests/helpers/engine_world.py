"""Engines with workers, as tests open them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vlmsel_auto.engines.engine import Engine, Finished
from vlmsel_auto.engines.local import LocalEngine


def ray_engine() -> Engine:
    pytest.importorskip("ray")
    from vlmsel_auto.engines.ray import RayEngine

    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # where Ray's workers find the jobs of tests
    return RayEngine(cpus=2)


APART: dict[str, Callable[[], Engine]] = {"local": lambda: LocalEngine(2), "ray": ray_engine}
PARAMS = ("local", pytest.param("ray", marks=pytest.mark.slow))  # of a fixture that opens each


def as_completed(engine: Engine) -> Iterator[Finished]:
    """All jobs of an engine as they finish, those included that are submitted meanwhile."""
    return iter(engine.finished, None)
