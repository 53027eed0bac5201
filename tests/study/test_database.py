"""Addresses of databases, without a server: what may be shown of them."""

import pytest

from vlmsel_auto.errors import InputError
from vlmsel_auto.study.database import database_url, is_away, reason_of, without_password

QUOTED = "p%40ss%2Fw"


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (f"postgresql://me:{QUOTED}@host/db", "postgresql://me@host/db"),
        (
            f"postgresql://me@host:5433/db?password={QUOTED}&sslmode=require",
            "postgresql://me@host:5433/db?sslmode=require",
        ),
        ("postgresql://host/db", "postgresql://host/db"),
    ],
)
def test_no_password_is_shown(told: str, shown: str) -> None:
    pytest.importorskip("psycopg", reason="needs the extra postgresql")
    assert without_password(told) == shown
    url = database_url(told)
    assert url.drivername == "postgresql+psycopg"
    error = RuntimeError(f"cannot connect with p@ss/w or {QUOTED}\nat all")
    assert reason_of(error, url) == (
        "cannot connect with *** or *** at all" if "p%40" in told else f"cannot connect with p@ss/w or {QUOTED} at all"
    )


@pytest.mark.parametrize("told", [f"sqlite:///{QUOTED}.db", "mysql://me:secret@host/db", "postgresql://me:secret@host"])
def test_other_databases_are_refused(told: str) -> None:
    with pytest.raises(InputError, match=r"postgresql://USER@HOST/DATABASE .*but got '") as caught:
        database_url(told)
    assert "secret" not in str(caught.value)


def test_a_server_that_refuses_is_not_away() -> None:
    errors = pytest.importorskip("psycopg", reason="needs the extra postgresql").errors
    words = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '
    away = [
        errors.OperationalError(f"{words}Connection refused"),
        errors.OperationalError(f"{words}FATAL:  the database system is starting up"),
        errors.AdminShutdown("terminating connection due to administrator command"),
        errors.ConnectionFailure("gone"),
    ]
    refused = [
        errors.OperationalError(f'{words}FATAL:  password authentication failed for user "me"'),
        errors.OperationalError(f'{words}FATAL:  database "db" does not exist'),
        errors.OutOfMemory("no memory"),
        errors.InsufficientPrivilege("permission denied for schema public"),
        RuntimeError("the tables are another Optuna's"),
    ]
    assert [is_away(each) for each in away] == [True] * len(away)
    assert [is_away(each) for each in refused] == [False] * len(refused)
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = away[0]
    assert is_away(wrapped)
