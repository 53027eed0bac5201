"""Four members, a folder of digits, and a search on it in a process of its own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from PIL import Image
from sklearn.datasets import load_digits

from vlmsel_auto.cache import Store
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.records import Basis, Candidate, Interval, RankedCandidate, Ranking, Task
from vlmsel_auto.study import study as studies
from vlmsel_auto.study.optuna_study import JOURNAL
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning.runner import TrialRunner

EAGER = replace(POLICY, price=-1.0)  # there is always another trial worth its time
NAMES = ("EffNet-Mi-64.all-m", "ConvNeXt-Mi-64.all-m", "ConvNeXt-Mi-64.synth-m", "RN-Mi-64.photo-m")


SCRIPT = """
import sys
from pathlib import Path
from vlmsel_auto.process import collections_paused
with collections_paused():  # as the command line imports
    import torch
    from vlmsel_auto.models import zoo
    from vlmsel_auto.models.candidates import resolve
    from vlmsel_auto.events import TrialFinished, TrialStarted
    from vlmsel_auto.records import Basis, Budget, Interval, RankedCandidate, Ranking
    from vlmsel_auto.cache import Store
    from vlmsel_auto.study.study import run_study
    from vlmsel_auto.tasks.task import TaskOptions, load_task
    from vlmsel_auto.tuning.runner import TrialRunner
torch.set_num_threads(1)

folder, workdir, names, trials = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(","), int(sys.argv[4])
candidates = resolve(names)
task = load_task(folder, TaskOptions(shots=4), views=[each.view for each in candidates], workdir=workdir)
ranked = tuple(
    RankedCandidate(candidate=name, score=1.0 - place / 2, sd=0.7, prior=None, evidence=None, p_best=0.0, p_top5=0.0,
                    rank_interval=Interval(low=1, high=4), basis=Basis.NOTHING)
    for place, name in enumerate(names)
)
def sink(event):
    if isinstance(event, TrialStarted):
        print("started", event.number, event.spec.candidate, event.spec.method, flush=True)
    if isinstance(event, TrialFinished):
        print("resumed" if event.resumed else "finished", event.result.number, event.result.state, flush=True)
runner = TrialRunner(task=task, candidates=candidates, load=zoo.load, store=Store(workdir / "targets"), workdir=workdir,
                     method_names=("probe", "finetune"), images_per_trial=150)
outcome = run_study(runner, ranking=Ranking(task="digits", ranked=ranked), budget=Budget(trials=trials), sink=sink,
                    members=5)
print("stopped", outcome.stopped_by, flush=True)
"""


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
    found = {each.id: each for each in mini_zoo()}
    return tuple(found[name] for name in NAMES)


@pytest.fixture(scope="module")
def task(digits_folder: Path, candidates: tuple[Candidate, ...], tmp_path_factory: pytest.TempPathFactory) -> Task:
    views = [each.view for each in candidates]
    return load_task(digits_folder, TaskOptions(shots=4), views=views, workdir=tmp_path_factory.mktemp("pixels"))


def ranking(names: tuple[str, ...] = NAMES) -> Ranking:
    lines = tuple(
        RankedCandidate(
            candidate=name,
            score=1.0 - place / 2,
            sd=0.7,
            prior=None,
            evidence=None,
            p_best=0.0,
            p_top5=0.0,
            rank_interval=Interval(low=1, high=len(names)),
            basis=Basis.NOTHING,
        )
        for place, name in enumerate(names)
    )
    return Ranking(task="digits", ranked=lines)


def run_study(
    *, task: Task, candidates: Sequence[Candidate], workdir: Path, methods: Sequence[str] | None = None, **more: object
) -> studies.StudyOutcome:
    """`study.run_study` of a runner that is made here, of what more is its own."""
    own = {name: more.pop(name) for name in ("load", "images_per_trial", "train_shots", "seed") if name in more}
    store = Store(workdir / "targets")
    runner = TrialRunner(
        task=task, candidates=candidates, store=store, workdir=workdir, method_names=methods, **own
    )  # fmt: skip
    return studies.run_study(runner, **more)


def study_of(workdir: Path) -> optuna.Study:
    """The study of a search, as Optuna itself reads it."""
    storage = JournalStorage(JournalFileBackend(str(workdir / JOURNAL)))
    return optuna.load_study(study_name="vlmsel-auto", storage=storage)
