"""A PostgreSQL database that holds a study's record: its address, who works on the study, and words without passwords.

One coordinator a study: it holds an advisory lock of the server on a connection that it keeps open. The server lets go
of the lock when the connection ends, and ends the connection of a machine that stopped answering within half a minute.
The last statement of that connection says who holds the lock, so lock and holder come and go together.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from vlmsel_auto.errors import InputError, MissingDependency

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

STUDY: Final = "vlmsel-auto"  # a search's study in Optuna; in a database with the digest of its task
_DRIVER: Final = "postgresql+psycopg"
_FORM: Final = "postgresql://USER@HOST/DATABASE (the password best in ~/.pgpass or PGPASSWORD)"
_SCHEMA: Final = "vlmsel-auto schema"  # lock of whoever makes Optuna's tables
_PATIENCE: Final = 2.0  # seconds: a server may take that long to notice that a process on its own machine died
_LONGEST_PATH: Final = 400  # bytes of a work directory's name: the server keeps 1,024 of a statement
_CLIENT: Final[dict[str, int]] = {  # a server that does not answer is away after 15 s
    "connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}  # fmt: skip
_SERVER: Final = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
_AWAY: Final = {"08", "57"}  # classes of SQLSTATE: the connection failed, an operator intervened
_PASSING: Final = ("database system is", "terminating connection")  # in recovery mode, starting up, shutting down
_TOLD: Final = re.compile(r"/\* vlmsel-auto ([\w=-]+) \*/", re.ASCII)


def database_url(storage: str) -> URL:
    """The address of a database.

    Raises:
        InputError: not the address of a PostgreSQL database. The message holds no password.
        MissingDependency: psycopg is not installed.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):  # their messages quote what was given
        raise InputError(f"--storage must be {_FORM}, but got {len(storage)} characters that are no address") from None
    if url.drivername not in {"postgres", "postgresql", _DRIVER} or not url.database:
        raise InputError(f"--storage must be {_FORM}, but got {shown(url)!r}")
    try:
        import psycopg  # noqa: F401 - SQLAlchemy imports it by name
    except ImportError as error:
        raise MissingDependency(
            "--storage needs psycopg: pip install 'vlmsel-auto[postgresql]', but got no such package"
        ) from error
    return url.set(drivername=_DRIVER)


def without_password(storage: str) -> str:
    """The address as it may be shown, see `shown`.

    Raises:
        InputError: see `database_url`.
        MissingDependency: likewise.
    """
    return shown(database_url(storage).set(drivername="postgresql"))


def shown(url: URL) -> str:
    """The address without its password, wherever that stands."""
    from sqlalchemy import URL

    plain = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    return plain.difference_update_query([name for name in url.query if "pass" in name.lower()]).render_as_string()


def _cause(error: BaseException) -> BaseException:
    """What the server or its driver said, which Optuna and SQLAlchemy wrap."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def is_away(error: BaseException) -> bool:
    """Whether the server is not there, or just starts or ends; not: it refuses a password, a name or a right."""
    import psycopg

    cause = _cause(error)
    if not isinstance(cause, psycopg.OperationalError):
        return False
    if cause.sqlstate is not None:
        return cause.sqlstate[:2] in _AWAY
    text = str(cause)  # libpq hides the state of a connection that was refused
    return "FATAL" not in text or any(said in text for said in _PASSING)


def reason_of(error: BaseException, url: URL) -> str:
    """What went wrong, in one line without the password."""
    cause = _cause(error)
    text = " ".join(str(cause).split()) or type(cause).__name__
    secrets = [url.password, *(value for name, value in url.query.items() if "pass" in name.lower())]
    for secret in secrets:
        for form in (str(secret), quote(str(secret), safe="")) if secret else ():
            text = text.replace(form, "***")
    return text


def engine_of(url: URL) -> Engine:
    """Connections that notice when the server is gone."""
    from sqlalchemy import create_engine

    return create_engine(url, pool_pre_ping=True, connect_args=connect_args(url))


def connect_args(url: URL) -> dict[str, str | int]:
    """What psycopg is told beside the address; what the address says itself stands."""
    told: dict[str, str | int] = {**_CLIENT, "options": _SERVER}
    return {name: value for name, value in told.items() if name not in url.query}


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who works on a study."""

    host: str
    pid: int
    workdir: str
    since: str  # UTC, by the clock of its machine

    @staticmethod
    def here(workdir: Path) -> Holder:
        """This process."""
        path = os.fsencode(workdir.absolute())[-_LONGEST_PATH:].decode(errors="replace")
        return Holder(host=socket.gethostname(), pid=os.getpid(), workdir=path,
                      since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"))  # fmt: skip

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}, in {self.workdir}"

    def comment(self) -> str:
        """As a comment of SQL that holds whatever a name may hold."""
        told = json.dumps([self.host, self.pid, self.workdir, self.since], ensure_ascii=False)
        return f"/* vlmsel-auto {base64.urlsafe_b64encode(told.encode()).decode()} */"

    @staticmethod
    def told(statement: str | None) -> Holder | None:
        """Who wrote `comment` into a statement."""
        found = _TOLD.search(statement or "")
        if found is None:
            return None
        with suppress(ValueError, TypeError):
            host, pid, workdir, since = json.loads(base64.urlsafe_b64decode(found.group(1)))
            return Holder(host=str(host), pid=int(pid), workdir=str(workdir), since=str(since))
        return None


class HeldError(InputError):
    """Another search works on the study."""


@dataclass(kw_only=True, eq=False)
class StudyLock:
    """This process's hold on a study, for as long as its connection lives."""

    connection: Connection
    me: Holder

    def check(self) -> None:
        """Ask the server for a sign of life.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the connection, and with it the lock, is gone.
        """
        self.connection.exec_driver_sql(f"SELECT 1 {self.me.comment()}")

    def release(self) -> None:
        """Let go, also when the server is gone."""
        from sqlalchemy.exc import SQLAlchemyError

        with suppress(SQLAlchemyError):
            self.connection.invalidate()  # not back into the pool: the lock is the session's
        with suppress(SQLAlchemyError):
            self.connection.close()


def hold(engine: Engine, *, study: str, me: Holder) -> StudyLock:
    """Take the lock of ``study``.

    Raises:
        HeldError: another process has it; the message says which and since when.
        sqlalchemy.exc.SQLAlchemyError: the server cannot be reached.
    """
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    lock = StudyLock(connection=connection, me=me)
    try:
        _wait(lock, key=_key(study))
    except BaseException:
        lock.release()
        raise
    return lock


def _wait(lock: StudyLock, *, key: int) -> None:
    end = time.monotonic() + _PATIENCE
    take = f"SELECT pg_try_advisory_lock({key}) {lock.me.comment()}"
    while not lock.connection.exec_driver_sql(take).scalar_one():
        if time.monotonic() > end:
            other = _holder(lock.connection, key=key)
            raise HeldError(
                "another search works on this study: wait for its end or stop it (its place is free half a minute "
                f"after it died), or leave --storage out, but got {other or 'a session that does not say whose'}"
            )
        time.sleep(0.1)


def _key(name: str) -> int:
    """64 bits of a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def _holder(connection: Connection, *, key: int) -> Holder | None:
    from sqlalchemy import text

    found = connection.execute(
        text(
            "SELECT activity.query FROM pg_locks lock JOIN pg_stat_activity activity USING (pid) "
            "WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1 "
            "AND lock.classid = :high AND lock.objid = :low "
            "AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ),
        {"high": (key >> 32) & 0xFFFFFFFF, "low": key & 0xFFFFFFFF},  # as the table of locks has a key
    )
    return Holder.told(found.scalars().first())


@contextmanager
def making_tables(engine: Engine) -> Iterator[None]:
    """One process at a time: two that make the same tables at once fail."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({_key(_SCHEMA)})")
        try:
            yield
        finally:
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_key(_SCHEMA)})")
