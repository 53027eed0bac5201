"""Scripts of benchmarks/, whose modules import each other by name."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports one by its name, as the scripts beside it do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module
