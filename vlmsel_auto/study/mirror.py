"""A study's record in a PostgreSQL database, written behind the search: for dashboards, and for a search elsewhere.

The search works on the journal in its work directory and waits for no server. A thread copies what is new; while the
server is away the search goes on, and what the database missed is written when it is back. Every trial is written under
the number that it has in the journal, and only what the database lacks is written, so nothing is there twice.

A work directory that has everything the database held when they last met (`_MET`) needs no server to go on; one that
never met it does, for only the database may know what there is.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import optuna
from optuna.exceptions import OptunaError
from optuna.trial import FrozenTrial

from vlmsel_auto.cache import Json, sealed, unsealed, write_atomically
from vlmsel_auto.errors import InputError, WorkdirError
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.study.comparing import check_same_search, knows_more
from vlmsel_auto.study.database import STUDY, Holder, database_url, engine_of, is_away, reason_of, shown
from vlmsel_auto.study.database_study import DatabaseStudy, Held, connect, unusable
from vlmsel_auto.study.journal import JOURNAL

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

DATABASE: Final = "the study in the database"
_HEARTBEAT: Final = 5.0  # seconds between two signs of life of the lock's connection
_AGAIN: Final = 1.0  # seconds between two tries while the server is away
_MET: Final = "database.json"  # of a work directory: the record that it holds in full
_LAST_WORDS: Final = 15.0  # seconds that the end of a search waits for what the database still misses


class StudyMirror:
    """The record of one study. Made by `mirrored`; all but the copying is the main thread's."""

    def __init__(self, url: URL, *, study: str, workdir: Path, sink: Sink) -> None:
        self._url, self._study, self._workdir, self._sink = url, study, workdir, sink
        self._me = Holder.here(workdir)
        self._engine: Engine = engine_of(url)
        self._source: optuna.Study | None = None
        self._about: Mapping[str, Json] = {}
        self._held = Held()
        self._thread: threading.Thread | None = None
        self._new, self._end = threading.Event(), threading.Event()
        self._said: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self._away = ""  # why the server cannot be reached
        self._session: DatabaseStudy | None = None

    def _connect(self) -> DatabaseStudy:
        return connect(self._url, engine=self._engine, study=self._study, me=self._me)

    @property
    def _name(self) -> dict[str, Json]:
        """Which record this is, without a password."""
        return {"database": shown(self._url), "study": self._study}

    def has_met(self) -> bool:
        """Whether the work directory has all that the database held when they last met."""
        try:
            told = unsealed(json.loads((self._workdir / _MET).read_bytes()))
        except (OSError, ValueError):  # damaged: as if they had never met
            return False
        return told == self._name and (self._workdir / JOURNAL).exists()

    def found(self, *, needed: bool = False) -> Held:
        """What the database holds; while the server is away, what it held when it was last read.

        Args:
            needed: a server that is away is an error.

        Raises:
            InputError: the database cannot be used, or another search holds the study.
        """
        from sqlalchemy.exc import SQLAlchemyError

        before = self._session
        try:
            self._session = before or self._connect()
            self._session.lock.check()
            self._held = self._session.held()
        except (SQLAlchemyError, OptunaError, RuntimeError) as error:  # RuntimeError: tables of another Optuna
            self._drop()
            if before is not None:  # a server that was restarted ended that connection, and may be back
                return self.found(needed=needed)
            if needed or not is_away(error):
                raise unusable(error, self._url) from None
            self._lost(error)
        self.changed()
        return self._held

    def follow(self, study: optuna.Study, *, about: Mapping[str, Json]) -> None:
        """From now on copy what is new in ``study``, which has all that was `found`."""
        write_atomically(self._workdir / _MET, json.dumps(sealed(self._name)).encode())
        self._source, self._about = study, about
        self._new.set()
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
            except InputError as error:  # another search has the study, or went on with it meanwhile
                self._say(f"the study's record in the database is no longer written: {error}")
                self._drop()
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
        assert self._source is not None  # noqa: S101 - `follow` starts the thread
        if self._session is None:
            self._session = self._connect()
            self._check(self._session.held(), ours=self._source.get_trials(deepcopy=False))
        self._session.lock.check()
        self._session.write(self._source.get_trials(deepcopy=False), about=self._source.user_attrs)
        if self._away:
            self._away = ""
            self._say("the database is back, and has what it missed", warning=False)

    def _check(self, held: Held, *, ours: Sequence[FrozenTrial]) -> None:
        """Refuse to mix this search with another, which had the study while the server could not be reached from here.

        Raises:
            WorkdirError: there was one.
        """
        check_same_search(self._about, known=held.about, place=DATABASE)
        if knows_more(held.trials, ours, workdir=self._workdir):
            raise WorkdirError(
                f"another search went on with the study meanwhile, but got {len(held.trials)} trials in the database "
                f"and {len(ours)} in {self._workdir}"
            )

    def _lost(self, error: Exception) -> None:
        if not self._away:
            self._away = reason_of(error, self._url)
            self._say(
                "the database cannot be reached: the search goes on, and what is missed will be written when it is "
                f"back ({self._away})"
            )
        self._drop()

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _say(self, text: str, *, warning: bool = True) -> None:
        self._said.put(Notice(text=text, level="warning" if warning else "info"))


@contextmanager
def mirrored(storage: str | None, *, task: str, workdir: Path, sink: Sink) -> Iterator[StudyMirror | None]:
    """Hold the study of a task in the database ``storage`` for this process; None where there is no database.

    A search that has the database's trials goes on while the server is away.

    Args:
        storage: address, see `database.database_url`.
        task: digest of the task.
        workdir: where the search works, for whoever asks who holds the study.
        sink: takes notices.

    Raises:
        InputError: no such address, another search holds the study, or the server refuses, or cannot be reached by a
            work directory that may lack what it holds.
        MissingDependency: psycopg is not installed.
    """
    if storage is None:
        yield None
        return
    mirror = StudyMirror(database_url(storage), study=f"{STUDY}-{task[:16]}", workdir=workdir, sink=sink)
    try:
        mirror.found(needed=not mirror.has_met())
        yield mirror
    finally:
        mirror.close()
