"""Opening the study of a search: mended after a kill, checked against what it is about, copied where the user wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.events import Sink, discard
from vlmsel_auto.planning.method import Method
from vlmsel_auto.records import Task
from vlmsel_auto.study.journal import JOURNAL, STUDY, mend
from vlmsel_auto.study.optuna_study import OptunaStudy

_WHAT: Final = {"table_sha256": "candidates", "task": "images, labels or split"}


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log lines."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def _journal(path: Path, *, sink: Sink) -> optuna.Study:
    """The study in a file that this process alone works on, mended after a kill."""
    mend(path, sink=sink)
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True)


def _check_same_search(about: Mapping[str, Json], *, known: Mapping[str, Json], workdir: Path) -> None:
    """Refuse a study that is about something else; what ``known`` does not say is no difference."""
    for key, value in about.items():
        found = known.get(key, value)
        if found != value:
            raise WorkdirError(
                f"the work directory {workdir} belongs to a search with other {_WHAT.get(key, key)}: choose another, "
                f"but got {key}={str(value)[:200]} for a study with {str(found)[:200]}"
            )


@contextmanager
def open_study(
    *,
    task: Task,
    names: Sequence[str],
    methods: Sequence[Method],
    workdir: Path,
    seed: int,
    done: Sequence[int],
    storage: str | None = None,
    sink: Sink = discard,
) -> Iterator[OptunaStudy]:
    """The study of this search, new or as it was left, with Optuna's log lines silenced.

    Args:
        task: what the study is about.
        names: the candidate table, sorted.
        methods: those that trials may use.
        workdir: holds the journal; the caller holds its lock.
        seed: of the sampler.
        done: numbers of the trials whose results are in ``workdir``; a journal that was lost is written anew from them.
        storage: address of the Optuna storage that finished trials are copied to, or None.
        sink: takes notices.

    Raises:
        WorkdirError: the study is one of other candidates, other methods or another task.
    """
    about: dict[str, Json] = {
        "candidates": list(names),
        "table_sha256": digest(list(names)),
        "methods": [each.name for each in methods],
        "task": task.digest,
        "format": 2,
    }
    journal = workdir.absolute() / JOURNAL
    with _quiet_optuna():
        study = _journal(journal, sink=sink)
        _check_same_search(about, known=study.user_attrs, workdir=workdir)
        for name, value in about.items():
            if name not in study.user_attrs:
                study.set_user_attr(name, value)
        known = len(study.get_trials(deepcopy=False))
        for number in range(known, max(done, default=-1) + 1):
            # files are adopted by the number they bear
            study.add_trial(create_trial(state=OptunaState.RUNNING, user_attrs={"lost": number}))
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        study.pruner = optuna.pruners.NopPruner()  # the plan prunes
        table = {each.name: each for each in methods}
        if storage is None:
            yield OptunaStudy(study=study, names=names, methods=table)
            return
        from vlmsel_auto.study.storage import StudyCopy  # loads SQLAlchemy

        with closing(StudyCopy(study, address=storage, workdir=workdir, sink=sink)) as copy:
            yield OptunaStudy(study=study, names=names, methods=table, closed=copy.update)
