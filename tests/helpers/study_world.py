"""Four members, a folder of digits, and searches on it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from PIL import Image
from sklearn.datasets import load_digits

from helpers.rankings import ranking_of
from vlmsel_auto.cache import Store
from vlmsel_auto.events import Sink
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Basis, Budget, Candidate, Ranking, Task
from vlmsel_auto.study import study as studies
from vlmsel_auto.study.optuna_study import JOURNAL
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning.runner import TrialRunner

EAGER = replace(POLICY, price=-1.0)  # there is always another trial worth its time
NAMES = ("EffNet-Mi-64.all-m", "ConvNeXt-Mi-64.all-m", "ConvNeXt-Mi-64.synth-m", "RN-Mi-64.photo-m")


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    for label in range(4):
        (folder / f"digit {label}").mkdir()
        for number, pixels in enumerate(digits.images[digits.target == label][:20]):
            image = Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((32, 32))
            image.save(folder / f"digit {label}" / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def candidates() -> tuple[Candidate, ...]:
    return resolve(NAMES)


@pytest.fixture(scope="module")
def task(digits_folder: Path, candidates: tuple[Candidate, ...], tmp_path_factory: pytest.TempPathFactory) -> Task:
    views = [each.view for each in candidates]
    return load_task(digits_folder, TaskOptions(shots=4), views=views, workdir=tmp_path_factory.mktemp("pixels"))


def ranking(names: Sequence[str] = NAMES) -> Ranking:
    """The candidates in this order."""
    scores = {name: 1.0 - place / 2 for place, name in enumerate(names)}
    return ranking_of(scores, task="digits", sd=0.7, basis=Basis.NOTHING)


Search = Callable[..., studies.StudyOutcome]


@pytest.fixture
def search(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> Search:
    """`run_study` of the members on the digits, by probes alone unless ``methods`` says otherwise."""
    fields = {"task": task, "candidates": candidates, "workdir": tmp_path, "methods": ("probe",), "load": zoo.load}
    return lambda trials=None, **changes: run_study(trials=trials, **{**fields, **changes})


def run_study(
    *,
    task: Task,
    candidates: Sequence[Candidate],
    workdir: Path,
    methods: Sequence[str] | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    **more: object,
) -> studies.StudyOutcome:
    """`study.run_study` of a runner that is made here, of what more is its own; candidates in the order given."""
    own = {name: more.pop(name) for name in ("load", "images_per_trial", "train_shots", "seed") if name in more}
    runner = TrialRunner(
        task=task, candidates=candidates, store=Store(workdir / "targets"), workdir=workdir, method_names=methods, **own
    )
    ranked = ranking([each.id for each in candidates])
    return studies.run_study(runner, **{"ranking": ranked, "budget": Budget(trials=trials, seconds=seconds), **more})


def search_in(
    workdir: Path, folder: Path, *, names: Sequence[str] = NAMES, sink: Sink, **changes: object
) -> studies.StudyOutcome:
    """Heads and towers on the images of a folder: the same in any process, whatever another one left."""
    candidates = resolve(names)
    task = load_task(folder, TaskOptions(shots=4), views=[each.view for each in candidates], workdir=workdir)
    same = {"methods": ("probe", "finetune"), "images_per_trial": 150, "members": 5, "load": zoo.load, "sink": sink}
    return run_study(task=task, candidates=candidates, workdir=workdir, **{**same, **changes})


def left_running(workdir: Path, **attributes: object) -> None:
    """A probe of the second candidate of the table, as a killed process leaves it in the study."""
    study = study_of(workdir)
    study.enqueue_trial({"candidate": 1, "method": "probe"}, user_attrs={"origin": "planned", **attributes})
    zombie = study.ask()
    zombie.suggest_int("candidate", 0, len(NAMES) - 1)
    zombie.suggest_categorical("method", ("probe",))


def study_of(workdir: Path) -> optuna.Study:
    """The study of a search, as Optuna itself reads it."""
    storage = JournalStorage(JournalFileBackend(str(workdir / JOURNAL)))
    return optuna.load_study(study_name="vlmsel-auto", storage=storage)
