"""Opening the study of a search: mended after a kill, checked against what it is about, joined with its database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.planning.method import Method
from vlmsel_auto.records import Task
from vlmsel_auto.study.comparing import check_same_search, knows_more
from vlmsel_auto.study.database import STUDY
from vlmsel_auto.study.database_study import quiet_optuna
from vlmsel_auto.study.journal import JOURNAL, mend
from vlmsel_auto.study.mirror import DATABASE, StudyMirror
from vlmsel_auto.study.optuna_study import OptunaStudy
from vlmsel_auto.tuning.checkpoints import trial_dir


def _journal(path: Path, *, sink: Sink) -> optuna.Study:
    """The study in a file that this process alone works on, mended after a kill."""
    mend(path, sink=sink)
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True)


@contextmanager
def open_study(
    *,
    task: Task,
    names: Sequence[str],
    methods: Sequence[Method],
    workdir: Path,
    seed: int,
    done: Sequence[int],
    mirror: StudyMirror | None = None,
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
        mirror: of the study in a database; trials that only it knows are taken over.
        sink: takes notices.

    Raises:
        WorkdirError: the study is one of other candidates, other methods or another task, or the work directory and the
            database went different ways.
    """
    about: dict[str, Json] = {
        "candidates": list(names),
        "table_sha256": digest(list(names)),
        "methods": [each.name for each in methods],
        "task": task.digest,
        "format": 2,
    }
    journal = workdir.absolute() / JOURNAL
    with quiet_optuna():
        study = _journal(journal, sink=sink)
        check_same_search(about, known=study.user_attrs, place=f"the work directory {workdir}")
        if mirror is not None:
            found = mirror.found()
            check_same_search(about, known=found.about, place=DATABASE)
            if knows_more(found.trials, study.get_trials(deepcopy=False), workdir=workdir):
                study = _taken_over(found.trials, study, journal=journal, sink=sink)
        for name, value in about.items():
            if name not in study.user_attrs:
                study.set_user_attr(name, value)
        known = len(study.get_trials(deepcopy=False))
        for number in range(known, max(done, default=-1) + 1):
            # files are adopted by the number they bear
            study.add_trial(create_trial(state=OptunaState.RUNNING, user_attrs={"lost": number}))
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        study.pruner = optuna.pruners.NopPruner()  # the plan prunes
        if mirror is not None:
            mirror.follow(study, about=about)
        yield OptunaStudy(study=study, names=names, methods={each.name: each for each in methods}, mirror=mirror)


def _taken_over(theirs: Sequence[FrozenTrial], study: optuna.Study, *, journal: Path, sink: Sink) -> optuna.Study:
    """A journal with the trials of the database; what the work directory has of unfinished ones belongs to others."""
    for each in study.get_trials(deepcopy=False):
        if not each.state.is_finished():
            shutil.rmtree(trial_dir(journal.parent, each.number), ignore_errors=True)
    journal.unlink()
    taken = _journal(journal, sink=sink)
    taken.add_trials(theirs)
    finished = sum(each.state.is_finished() for each in theirs)
    sink(Notice(text=f"going on with the study in the database, which has {finished} finished trials"))
    return taken
