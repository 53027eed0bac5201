"""One study in a PostgreSQL database, locked for this process: what it holds is read, and what is new is written."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import InputError
from vlmsel_auto.study.database import Holder, StudyLock, connect_args, hold, making_tables, reason_of

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log lines."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def usable(url: URL) -> Iterator[None]:
    """Say in one line that the database cannot be used.

    Raises:
        InputError: instead of what SQLAlchemy and Optuna raise.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, OptunaError, RuntimeError) as error:  # RuntimeError: tables of another Optuna
        raise unusable(error, url) from None


def unusable(error: Exception, url: URL) -> InputError:
    """What to tell the user of a database that cannot be used."""
    return InputError(
        "the database of --storage cannot be used: start the server, mend the address, or leave --storage out, "
        f"but got {reason_of(error, url)}"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """What the database holds of a study."""

    about: Mapping[str, Json] = field(default_factory=dict)
    trials: Sequence[FrozenTrial] = ()  # by number


@dataclass(kw_only=True, eq=False)
class DatabaseStudy:
    """A connection: the lock, the storage, and what the database is known to hold."""

    lock: StudyLock
    storage: RDBStorage
    study_id: int
    about: dict[str, Json] = field(default_factory=dict)
    written: dict[int, FrozenTrial] = field(default_factory=dict)  # by number, copies of what was written
    seen: dict[int, FrozenTrial] = field(default_factory=dict)  # by number, the journal's own
    ids: dict[int, int] = field(default_factory=dict)  # number -> the database's own

    def close(self) -> None:
        """Let go of the study, also when the server is gone."""
        self.lock.release()
        with suppress(Exception):  # the server may be gone
            self.storage.remove_session()
        self.storage.engine.dispose()

    def held(self) -> Held:
        """All that the database has, which is then known to be written."""
        self.about = self.storage.get_study_user_attrs(self.study_id)
        found = self.storage.get_all_trials(self.study_id)
        self.written = {each.number: each for each in found}
        self.ids = {each.number: each._trial_id for each in found}  # noqa: SLF001 - what the setters of storages take
        return Held(about=dict(self.about), trials=found)

    def write(self, trials: Sequence[FrozenTrial], *, about: Mapping[str, Json]) -> None:
        """Write what is new of the journal's trials, and what the study says of them (such as `EXPECTED`)."""
        for name, value in about.items():
            if self.about.get(name) != value:
                self.storage.set_study_user_attr(self.study_id, name, value)
                self.about[name] = value
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


def connect(url: URL, *, engine: Engine, study: str, me: Holder) -> DatabaseStudy:
    """Lock the study of that name, which is made where there is none.

    Raises:
        HeldError: another process has it.
        sqlalchemy.exc.SQLAlchemyError: the server cannot be reached or used.
        optuna.exceptions.OptunaError: likewise.
        RuntimeError: the tables are another Optuna's.
    """
    lock = hold(engine, study=study, me=me)
    try:
        with making_tables(engine):
            storage = RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs={"pool_pre_ping": True, "connect_args": connect_args(url)},
            )
        with quiet_optuna():
            made = optuna.create_study(
                storage=storage, study_name=study, direction=StudyDirection.MAXIMIZE, load_if_exists=True
            )
    except BaseException:
        lock.release()
        raise
    return DatabaseStudy(lock=lock, storage=storage, study_id=made._study_id)  # noqa: SLF001 - as storages know it
