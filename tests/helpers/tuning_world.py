"""One small member, digits in memory and a trial of it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo, resolve
from vlmsel_auto.records import Candidate, ImageView, PixelSource, Task, TrialResult, TrialSpec
from vlmsel_auto.tuning.runner import Trial, TrialRunner

NAME = "EffNet-Mi-64.all-m"


class Memory(PixelSource):
    """Images in memory as a pixel source."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels

    def read(self, view: ImageView, indices: np.ndarray) -> np.ndarray:
        side = self._pixels.shape[1]
        steps = np.arange(view.size) * side // view.size
        return self._pixels[indices][:, steps][:, :, steps]


def digits(classes: int = 4) -> Task:
    data = load_digits()
    chosen = np.concatenate([np.flatnonzero(data.target == each)[:20] for each in range(classes)])
    labels = data.target[chosen].astype(np.int64)
    pixels = np.repeat((data.images[chosen] * 15.9).astype(np.uint8)[..., None], 3, axis=-1)
    order = np.random.default_rng(0).permutation(len(labels))
    return Task(
        name="digits",
        root=Path(),
        classes=tuple(str(each) for each in range(classes)),
        prompts=tuple(str(each) for each in range(classes)),
        templates=("the handwritten digit {}",),
        domain="digits",
        metric="accuracy",
        paths=tuple(str(each) for each in range(len(labels))),
        labels=labels,
        train=order[:40],
        val=order[40:60],
        test=order[60:],
        support=order[:40],
        shots=16,
        bad_files=(),
        pixels=Memory(pixels),
        digest="digits-by-hand",
    )


@pytest.fixture(scope="module")
def candidate() -> Candidate:
    return next(each for each in mini_zoo() if each.id == NAME)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("features"))


def spec(**changes: object) -> TrialSpec:
    """A trial of the member; changes of settings by their names."""
    settings = {"learning_rate": 1e-3, "weight_decay": 0.05, "augmentation": 0.3}
    settings |= {name: changes.pop(name) for name in tuple(changes) if name in settings}
    fields = {"candidate": NAME, "method": "finetune", "settings": settings, "epochs": 3, "seed": 0}
    return TrialSpec(**{**fields, **changes})


def runner(path: Path, **changes: object) -> TrialRunner:
    """Of trials of the member on the digits, with all its files below ``path``."""
    fields = {"task": digits(), "candidates": resolve(NAME), "load": zoo.load, "store": Store(path / "store")}
    return TrialRunner(**{**fields, "workdir": path, "images_per_trial": 1_000, "seed": 3, **changes})


def run(tmp_path: Path, candidate: Candidate, store: Store, one: TrialSpec, **changes: object) -> TrialResult:
    hooks = {name: changes.pop(name) for name in ("report", "sink") if name in changes}
    trial = {name: changes.pop(name) for name in ("number", "deadline", "continues") if name in changes}
    fields = {"task": digits(), "candidates": [candidate], "load": zoo.load, "store": store, "workdir": tmp_path}
    return TrialRunner(**{**fields, **changes}).run(Trial(spec=one, **{"number": 5, **trial}), **hooks)


Tune = Callable[..., TrialResult]


@pytest.fixture
def tune(tmp_path: Path, candidate: Candidate, store: Store) -> Tune:
    """`run` of the member in the test's folder: takes the trial, and what changes."""
    return partial(run, tmp_path, candidate, store)
