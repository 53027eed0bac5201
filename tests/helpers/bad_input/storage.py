"""Storages that are not there, or that do not let the user in."""

import socket

from helpers.bad_input.case import REFUSED, SEARCH, Case, good_task

PASSWORD = "s3cr3t&word"  # noqa: S105  of nobody


def storage(url: str, says: str, *, name: str) -> Case:
    given = (*SEARCH, "--storage", url)
    return Case(room="storage", name=name, make=good_task, arguments=given, code=REFUSED, says=says, secret=PASSWORD)


def nothing_listens() -> str:
    """A port of this machine that nobody listens on: the system gave it, and it was given back."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


CASES = (
    storage("sqlite:////no/such/folder/study.db", "unable to open database file", name="folder that is not there"),
    storage("study.db", "--storage must be postgresql://.* no address", name="no URL"),
    storage(f"oracel://me:{PASSWORD}@host/db", "mend the address.*oracel", name="unknown database"),
    storage(f"postgresql://me:{PASSWORD}@127.0.0.1:port/db", "--storage must be postgresql://", name="port of words"),
    storage(f"postgresql://me:{PASSWORD}@127.0.0.1:{nothing_listens()}/db", "start its server", name="unreachable"),
    storage(f"postgresql://me:{PASSWORD}@no-such-host.invalid/db", "mend the address", name="host that is not there"),
)
