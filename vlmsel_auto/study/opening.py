"""Opening the study of a search: mended after a kill, checked against what it is about, joined with its database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.planning.method import Method
from vlmsel_auto.records import Task
from vlmsel_auto.study.database import STUDY
from vlmsel_auto.study.journal import JOURNAL, CheckedJournal, mend
from vlmsel_auto.study.mirror import StudyMirror, quiet_optuna
from vlmsel_auto.study.optuna_study import OptunaStudy
from vlmsel_auto.tuning.checkpoints import trial_dir

_WHAT: Final = {"table_sha256": "candidates", "task": "images, labels or split"}


def _journal(path: Path, *, sink: Sink) -> optuna.Study:
    """The study in a file that this process alone works on, mended after a kill."""
    mend(path, sink=sink)
    storage = JournalStorage(CheckedJournal(str(path)))
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
        _check(about, known=study.user_attrs, place=f"the work directory {workdir}")
        if mirror is not None:
            _check(about, known=mirror.about(about), place="the study in the database")
            theirs = mirror.trials()
            if _knows_more(theirs, study.get_trials(deepcopy=False), workdir=workdir):
                study = _taken_over(theirs, study, journal=journal, sink=sink)
        for name, value in about.items():
            if name not in study.user_attrs:
                study.set_user_attr(name, value)
        known = len(study.get_trials(deepcopy=False))
        for number in range(known, max(done, default=-1) + 1):
            # files are adopted by the number they bear
            study.add_trial(create_trial(state=OptunaState.RUNNING, user_attrs={"lost": number}))
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        study.pruner = optuna.pruners.NopPruner()  # trials are paused at rungs, and can go on
        if mirror is not None:
            mirror.follow(study)
        yield OptunaStudy(study=study, names=names, methods={each.name: each for each in methods}, mirror=mirror)


def _check(about: Mapping[str, Json], *, known: Mapping[str, Json], place: str) -> None:
    for key, value in about.items():
        found = known.get(key, value)
        if found != value:
            raise WorkdirError(
                f"{place} belongs to a search with other {_WHAT.get(key, key)}: choose another, "
                f"but got {key}={str(value)[:200]} for a study with {str(found)[:200]}"
            )


def _knows_more(theirs: Sequence[FrozenTrial], ours: Sequence[FrozenTrial], *, workdir: Path) -> bool:
    """Whether the database has trials, or results, that the journal lacks.

    Raises:
        WorkdirError: each has some that the other lacks, or the same trial ended differently.
    """
    for their, our in zip(theirs, ours, strict=False):
        if their.state.is_finished() and our.state.is_finished() and _outcome(their) != _outcome(our):
            break
    else:
        lacking, more = _lacks(ours, theirs), _lacks(theirs, ours)
        if not (lacking and more):
            return lacking
    raise WorkdirError(
        "the work directory and the study in the database went different ways, for another search went on with it in "
        f"between: use another --workdir, or leave --storage out, but got {workdir} with {len(ours)} trials and a "
        f"database with {len(theirs)}"
    )


def _outcome(trial: FrozenTrial) -> tuple[object, ...]:
    return (trial.state, trial.values, trial.params)


def _lacks(some: Sequence[FrozenTrial], others: Sequence[FrozenTrial]) -> bool:
    """Whether a trial of ``others`` is not in ``some``, or further there."""
    there = {each.number: _progress(each) for each in some}
    return any(_progress(each) > there.get(each.number, 0) for each in others)


def _progress(trial: FrozenTrial) -> int:
    """0: it only waits."""
    return 2 if trial.state.is_finished() else int(trial.state == OptunaState.RUNNING)


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
