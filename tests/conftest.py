"""Every test: pinned seeds, its own cache and library folder, one torch thread, no display."""

import gc
import itertools
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))  # benchmarks/ and tools/; at the end, so that nothing is shadowed
gc.disable()  # until all is imported, which leaves no garbage
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's own 15 its workers starve beside the other tests
os.environ.setdefault("HF_HUB_OFFLINE", "1")
hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("patient")
_NUMBERS = itertools.count()  # of homes
_IMPORTED: list[int] = []  # modules when objects were frozen
LONGEST = (  # files that take more than a quarter of a minute, about in this order
    "tests/models/test_onnxfile.py", "tests/cli/test_cli.py", "tests/study/test_dispatch.py",
    "tests/models/test_real_architectures.py", "tests/pipeline/test_search.py",
    "tests/pipeline/test_search_from_hub.py", "tests/test_bad_input.py", "tests/test_documents.py",
    "tests/study/test_recovery.py",
    "tests/pipeline/test_without_labels.py", "tests/benchmarks/test_faults.py",
    "tests/test_estimator.py", "tests/benchmarks/test_screening.py", "tests/engines/test_engine.py",
    "tests/engines/test_ray.py", "tests/pipeline/test_workers.py", "tests/measuring/test_build.py",
    "tests/models/test_precision.py", "tests/study/test_study.py",
    "tests/pipeline/test_screen.py", "tests/pipeline/test_source_profiles.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that none is left alone at the end while other processes have nothing.

    Those with slow tests are next.
    """
    root = Path(__file__).parents[1]
    place = {root / name: number for number, name in enumerate(LONGEST)}
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (place.get(item.path, len(place)), item.path not in slow))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:  # pytest-xdist's first process runs it too, but collects no tests
    """Collections of garbage skip what importing has made: each model that is let go costs one, of all objects."""
    gc.enable()
    gc.collect()
    gc.freeze()
    _IMPORTED.append(len(sys.modules))


@pytest.fixture(autouse=True)
def _imported_meanwhile() -> None:
    """What earlier tests imported is skipped too."""
    if len(sys.modules) > _IMPORTED[-1] + 100:
        gc.collect()
        gc.freeze()
        _IMPORTED.append(len(sys.modules))


@pytest.fixture(autouse=True, scope="module")
def _cache_of_fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMSEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _sealed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.getbasetemp() / f"home-{next(_NUMBERS)}"  # mktemp would look at all that are there
    home.mkdir()
    monkeypatch.setenv("VLMSEL_CACHE", str(home / "cache"))
    monkeypatch.setenv("VLMSEL_LIBRARY", str(home / "library.safetensors"))
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  libraries under test still draw from the global state


@pytest.fixture(scope="session")
def minizoo() -> Path:
    """Folder of the mini zoo that ships with the package."""
    return Path(__file__).parents[1] / "vlmsel_auto" / "minizoo"
