"""A study's record in a PostgreSQL database, written behind the search: for dashboards, and for a search elsewhere.

The search works on the journal in its work directory and waits for no server. A thread copies what is new; while the
server is away the search goes on, and what the database missed is written when it is back. Every trial is written under
the number that it has in the journal, and only what the database lacks is written, so nothing is there twice.
"""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import InputError
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.study.database import (
    STUDY,
    HeldError,
    Holder,
    StudyLock,
    connect_args,
    database_url,
    engine_of,
    hold,
    making_tables,
    reason_of,
)

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

_HEARTBEAT: Final = 5.0  # seconds between two signs of life of the lock's connection
_AGAIN: Final = 1.0  # seconds between two tries while the server is away
_LAST_WORDS: Final = 15.0  # seconds that the end of a search waits for what the database still misses


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log lines."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


@dataclass(kw_only=True, eq=False)
class _Session:
    """A connection: the lock, the storage, and what the database is known to hold."""

    lock: StudyLock
    storage: RDBStorage
    study_id: int
    written: dict[int, FrozenTrial] = field(default_factory=dict)  # by number, copies of what was written
    seen: dict[int, FrozenTrial] = field(default_factory=dict)  # by number, the journal's own
    ids: dict[int, int] = field(default_factory=dict)  # number -> the database's own
    attrs: dict[str, Json] = field(default_factory=dict)  # of the study, as written

    def close(self) -> None:
        self.lock.release()
        with suppress(Exception):  # the server may be gone
            self.storage.remove_session()
        self.storage.engine.dispose()

    def trials(self) -> list[FrozenTrial]:
        """All trials of the database by number, which are then known to be written."""
        found = self.storage.get_all_trials(self.study_id)
        self.written = {each.number: each for each in found}
        self.ids = {each.number: each._trial_id for each in found}  # noqa: SLF001 - what the setters of storages take
        return found

    def write_attrs(self, attrs: Mapping[str, Json]) -> None:
        """Write what is new of what the journal says of the study, as what its trials are expected to reach."""
        for name, told in attrs.items():
            if self.attrs.get(name) != told:
                self.storage.set_study_user_attr(self.study_id, name, told)
                self.attrs[name] = told

    def write(self, trials: Sequence[FrozenTrial]) -> None:
        """Write what is new of the journal's trials."""
        begun = [each.number for each in trials if each.state != OptunaState.WAITING]
        for each in trials[: max(begun, default=-1) + 1]:  # what only waits may yet be anything
            before = self.written.get(each.number)
            if before is None:
                self.ids[each.number] = self.storage.create_new_trial(self.study_id, each)
            elif self.seen.get(each.number) is each or before.state.is_finished():
                continue
            else:
                self._update(before, each)
            # a journal replaces a trial that changes, yet `optuna.Trial` also changes the one that it was given
            self.seen[each.number], self.written[each.number] = each, copy.deepcopy(each)

    def _update(self, before: FrozenTrial, now: FrozenTrial) -> None:
        """The state comes last: until then what a lost connection left out is written again."""
        place, storage = self.ids[now.number], self.storage
        for name, value in now.params.items():
            if name not in before.params:
                kind = now.distributions[name]
                storage.set_trial_param(place, name, kind.to_internal_repr(value), kind)
        for name, told in now.user_attrs.items():
            if before.user_attrs.get(name) != told:
                storage.set_trial_user_attr(place, name, told)
        for step, reached in now.intermediate_values.items():
            if step not in before.intermediate_values:
                storage.set_trial_intermediate_value(place, step, reached)
        if now.state != before.state:
            storage.set_trial_state_values(place, now.state, now.values)


class StudyMirror:
    """The record of one study. Made by `mirrored`; all but the copying is the main thread's."""

    def __init__(self, url: URL, *, study: str, me: Holder, sink: Sink) -> None:
        self._url, self._study, self._me, self._sink = url, study, me, sink
        self._engine: Engine = engine_of(url)
        self._source: optuna.Study | None = None
        self._thread: threading.Thread | None = None
        self._new, self._end = threading.Event(), threading.Event()
        self._said: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self._away = ""  # why the server cannot be reached
        self._session: _Session | None = self._connect()

    def _connect(self) -> _Session:
        lock = hold(self._engine, study=self._study, me=self._me)
        try:
            with making_tables(self._engine):
                storage = RDBStorage(
                    self._url.render_as_string(hide_password=False),
                    engine_kwargs={"pool_pre_ping": True, "connect_args": connect_args(self._url)},
                )
            with quiet_optuna():
                study = optuna.create_study(
                    storage=storage, study_name=self._study, direction=StudyDirection.MAXIMIZE, load_if_exists=True
                )
        except BaseException:
            lock.release()
            raise
        return _Session(lock=lock, storage=storage, study_id=study._study_id)  # noqa: SLF001 - as storages know it

    def about(self, told: Mapping[str, Json]) -> Mapping[str, Json]:
        """What the study in the database is about; what it does not say yet is written there."""
        session = self._opened()
        with usable(self._url):
            known = session.storage.get_study_user_attrs(session.study_id)
            for name, value in told.items():
                if name not in known:
                    session.storage.set_study_user_attr(session.study_id, name, value)
            return {**told, **known}

    def trials(self) -> list[FrozenTrial]:
        """All trials that the database holds, by number."""
        with usable(self._url):
            return self._opened().trials()

    def _opened(self) -> _Session:
        assert self._session is not None, "the record is read before it follows a study"  # noqa: S101
        return self._session

    def follow(self, study: optuna.Study) -> None:
        """From now on copy what is new in ``study``."""
        self._source = study
        self._thread = threading.Thread(target=self._copy, name="study mirror", daemon=True)
        self._thread.start()

    def changed(self) -> None:
        """Something is new in the study. Says what the copying thread has to say."""
        self._new.set()
        while not self._said.empty():
            self._sink(self._said.get())

    def close(self) -> None:
        """Write what is missing, for as long as that may take, and let go of the study."""
        self._end.set()
        self._new.set()
        if self._thread is not None:
            self._thread.join(timeout=_LAST_WORDS + 1)
        self.changed()
        if self._session is not None and (self._thread is None or not self._thread.is_alive()):
            self._session.close()
        self._engine.dispose()

    def _copy(self) -> None:
        """The thread: copy what is new, give signs of life, and come back when the server was away."""
        last: float | None = None
        while True:
            self._new.wait(timeout=_AGAIN if self._away else _HEARTBEAT)
            self._new.clear()
            if self._end.is_set() and last is None:
                last = time.monotonic() + _LAST_WORDS
            try:
                self._step()
            except HeldError as error:
                self._say(f"the study's record in the database is no longer written: {error}")
                return
            except Exception as error:  # noqa: BLE001 - whatever the server or its driver does, the search goes on
                self._lost(error)
            if last is not None:
                if not self._away:
                    return
                if time.monotonic() > last:
                    self._say("the database misses the last trials of this search: the same command writes them")
                    return
                time.sleep(_AGAIN)
                self._new.set()

    def _step(self) -> None:
        if self._session is None:
            self._session = self._connect()
            self._session.trials()
        self._session.lock.check()
        assert self._source is not None  # noqa: S101 - `follow` starts the thread
        self._session.write(self._source.get_trials(deepcopy=False))
        self._session.write_attrs(self._source.user_attrs)
        if self._away:
            self._away = ""
            self._say("the database is back, and has what it missed", warning=False)

    def _lost(self, error: Exception) -> None:
        if not self._away:
            self._away = reason_of(error, self._url)
            self._say(
                "the database cannot be reached: the search goes on, and what is missed will be written when it is "
                f"back ({self._away})"
            )
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _say(self, text: str, *, warning: bool = True) -> None:
        self._said.put(Notice(text=text, level="warning" if warning else "info"))


@contextmanager
def mirrored(storage: str | None, *, task: str, workdir: Path, sink: Sink) -> Iterator[StudyMirror | None]:
    """Hold the study of a task in the database ``storage`` for this process; None where there is no database.

    Args:
        storage: address, see `database.database_url`.
        task: digest of the task.
        workdir: where the search works, for whoever asks who holds the study.
        sink: takes notices.

    Raises:
        InputError: no such address, the server cannot be reached or used, or another search holds the study.
        MissingDependency: psycopg is not installed.
    """
    if storage is None:
        yield None
        return
    url = database_url(storage)
    with usable(url):
        mirror = StudyMirror(url, study=f"{STUDY}-{task[:16]}", me=Holder.here(workdir), sink=sink)
    try:
        yield mirror
    finally:
        mirror.close()


@contextmanager
def usable(url: URL) -> Iterator[None]:
    """Say in one line that the database cannot be used, before a search follows it."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, OptunaError, RuntimeError) as error:  # RuntimeError: tables of another Optuna
        raise InputError(
            "the database of --storage cannot be used: start the server, mend the address, or leave --storage out, "
            f"but got {reason_of(error, url)}"
        ) from None
