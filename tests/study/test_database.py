"""Addresses of databases, without a server: what may be shown of them."""

import pytest

from vlmsel_auto.errors import InputError
from vlmsel_auto.study.database import database_url, reason_of, without_password

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
