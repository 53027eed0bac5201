"""The journal of a study: mended after a kill, checked against what it is about, copied where the user wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.study.optuna_study import JOURNAL, STUDY, OptunaStudy
from vlmsel_auto.tuning.checkpoints import result_numbers
from vlmsel_auto.tuning.runner import TrialRunner

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


def _mend(path: Path, *, sink: Sink) -> None:
    """Make a journal readable after a kill or damage; the caller holds the lock of its folder.

    What was written by halves never happened, and a journal that Optuna cannot read is put aside: results are files of
    their own, from which the study is made whole again.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if not path.exists():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    try:
        JournalStorage(JournalFileBackend(str(path)))  # reads all of it
    except Exception as error:  # noqa: BLE001 - what a damaged line makes Optuna raise, it does not say
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        told = f"{path} was damaged ({error}): it is put aside as {aside.name}, and written anew from the results"
        sink(Notice(text=told, level="warning"))


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
def open_study(runner: TrialRunner, *, storage: str | None = None, sink: Sink = discard) -> Iterator[OptunaStudy]:
    """The study of this search, new or as it was left, with Optuna's log lines silenced.

    Args:
        runner: what its trials are made with. The work directory holds the journal, and the caller its lock; a journal
            that was lost is written anew from the results there.
        storage: address of the Optuna storage that finished trials are copied to, or None.
        sink: takes notices.

    Raises:
        WorkdirError: the study is one of other candidates, other methods or another task.
    """
    names, workdir = list(runner.table), runner.workdir
    about: dict[str, Json] = {
        "candidates": [*names],
        "table_sha256": digest([*names]),
        "methods": [*runner.methods],
        "task": runner.task.digest,
        "format": 2,
    }
    journal = workdir.absolute() / JOURNAL
    with _quiet_optuna():
        _mend(journal, sink=sink)
        stored = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(storage=stored, study_name=STUDY, direction="maximize", load_if_exists=True)
        _check_same_search(about, known=study.user_attrs, workdir=workdir)
        for name, value in about.items():
            if name not in study.user_attrs:
                study.set_user_attr(name, value)
        known = len(study.get_trials(deepcopy=False))
        for number in range(known, max(result_numbers(workdir), default=-1) + 1):
            # files are adopted by the number they bear
            study.add_trial(create_trial(state=OptunaState.RUNNING, user_attrs={"lost": number}))
        study.sampler = optuna.samplers.TPESampler(seed=runner.seed)
        study.pruner = optuna.pruners.NopPruner()  # the plan prunes
        if storage is None:
            yield OptunaStudy(study=study, names=names, methods=runner.methods)
            return
        from vlmsel_auto.study.storage import StudyCopy  # loads SQLAlchemy

        with closing(StudyCopy(study, address=storage, workdir=workdir, sink=sink)) as copy:
            yield OptunaStudy(study=study, names=names, methods=runner.methods, closed=copy.update)
