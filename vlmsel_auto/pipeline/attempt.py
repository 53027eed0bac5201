"""Work with one candidate, which may fail without stopping the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.process import is_out_of_memory, release_memory

R = TypeVar("R")


def attempt(work: Callable[[], R]) -> R | str:
    """What ``work`` with one candidate gives, or why it cannot be done; its model is released in either case."""
    try:
        return work()
    except VlmselError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:  # torch: out of memory, operators a device lacks
        what = "out of memory" if is_out_of_memory(error) else type(error).__name__
        return f"{what}: {' '.join(str(error).split())[:300]}"
    finally:
        release_memory()
