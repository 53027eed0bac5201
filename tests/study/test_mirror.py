"""The study's record in a real PostgreSQL server: one coordinator, a server that goes away, a search elsewhere."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from helpers.postgres import Server
from helpers.postgres_world import NEEDS_SERVER, PASSWORD, server
from helpers.study_world import candidates, digits_folder, ranking, study_of, task
from vlmsel_auto.errors import InputError
from vlmsel_auto.events import Event, Notice, TrialFinished
from vlmsel_auto.models import zoo
from vlmsel_auto.records import Budget, Candidate, Task
from vlmsel_auto.study.database import HeldError, Holder
from vlmsel_auto.study.mirror import mirrored
from vlmsel_auto.study.study import StudyOutcome, run_study

__all__ = ["candidates", "digits_folder", "server", "task"]  # fixtures

pytest.importorskip("psycopg", reason="needs the extra postgresql")
pytestmark = NEEDS_SERVER

HOLD = """
import sys
from pathlib import Path
from vlmsel_auto.study.mirror import mirrored
with mirrored(sys.argv[1], task="t" * 64, workdir=Path(sys.argv[2]), sink=print):
    print("holding", flush=True)
    sys.stdin.read()  # until it is closed
"""


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    """A new, empty database."""
    name = f"db{zlib.crc32(request.node.name.encode())}"
    server.execute(f'CREATE DATABASE "{name}"')
    return server.url.removesuffix("postgres") + name


def trials_in(url: str, task: Task) -> list[FrozenTrial]:
    storage = RDBStorage(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        return optuna.load_study(study_name=f"vlmsel-auto-{task.digest[:16]}", storage=storage).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def same(some: list[FrozenTrial], others: list[FrozenTrial]) -> bool:
    def told(trial: FrozenTrial) -> tuple[object, ...]:
        return (trial.number, trial.state, trial.values, trial.params, trial.user_attrs, trial.intermediate_values)

    return [told(each) for each in some] == [told(each) for each in others]


Search = Callable[..., StudyOutcome]


@pytest.fixture
def search(task: Task, candidates: tuple[Candidate, ...]) -> Search:
    def run(
        url: str,
        workdir: Path,
        *,
        trials: int,
        sink: Callable[[Event], None] = lambda _: None,
        opened: Callable[[], None] = lambda: None,
    ) -> StudyOutcome:
        with mirrored(url, task=task.digest, workdir=workdir, sink=sink) as mirror:
            opened()
            return run_study(
                task=task, candidates=candidates, ranking=ranking(), budget=Budget(trials=trials), workdir=workdir,
                load=zoo.load, methods=("probe",), mirror=mirror, sink=sink,
            )  # fmt: skip

    return run


def start(url: str, workdir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", HOLD, url, str(workdir)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env={**os.environ}, **pipes)


def test_the_database_has_what_the_journal_has(url: str, search: Search, task: Task, tmp_path: Path) -> None:
    outcome = search(url, tmp_path, trials=3)
    assert len(outcome.results) == 3
    assert same(trials_in(url, task), study_of(tmp_path).get_trials())
    again = search(url, tmp_path, trials=4)
    assert again.results[:3] == outcome.results
    assert same(trials_in(url, task), study_of(tmp_path).get_trials())
    for file in (each for each in tmp_path.rglob("*") if each.is_file()):
        assert b"s3cret" not in file.read_bytes()


def test_two_at_the_same_second_on_a_new_database(url: str, tmp_path: Path) -> None:
    both = [start(url, tmp_path / name) for name in "ab"]
    until = time.monotonic() + 120
    while all(process.poll() is None for process in both) and time.monotonic() < until:
        time.sleep(0.02)
    said = [process.communicate(timeout=120) for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1], said
    works, waits = codes.index(0), codes.index(1)
    assert "holding" in said[works][0]
    last = said[waits][1].strip().splitlines()[-1]
    assert "another search works on this study" in last
    assert f"process {both[works].pid} on " in last
    assert str(tmp_path / "ab"[works]) in last
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", last)
    assert "s3cret" not in said[waits][1]


def test_a_search_takes_over_when_the_holder_is_killed(url: str, tmp_path: Path) -> None:
    with start(url, tmp_path / "a") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(HeldError, match=f"process {holder.pid} on "), \
                mirrored(url, task="t" * 64, workdir=tmp_path, sink=print):  # fmt: skip
            pass
        holder.kill()
        with mirrored(url, task="t" * 64, workdir=tmp_path, sink=print) as mirror:
            assert mirror is not None
            with mirrored(url, task="u" * 64, workdir=tmp_path, sink=print):  # another study is nobody's
                pass


def test_a_search_elsewhere_goes_on_with_what_the_database_has(
    url: str, search: Search, task: Task, tmp_path: Path
) -> None:
    first = search(url, tmp_path / "a", trials=3)
    second = search(url, tmp_path / "b", trials=4)
    assert second.results[:3] == first.results
    assert len(second.results) == 4
    third = search(url, tmp_path / "a", trials=4)  # the first work directory hears of what the second did
    assert third.results == second.results
    assert same(trials_in(url, task), study_of(tmp_path / "a").get_trials())


@pytest.mark.slow
def test_a_server_that_goes_away_in_mid_search(
    server: Server, url: str, search: Search, task: Task, tmp_path: Path
) -> None:
    said: list[str] = []
    back = threading.Timer(4.0, server.start)

    def sink(event: Event) -> None:
        if isinstance(event, Notice):
            said.append(event.text)
        if isinstance(event, TrialFinished) and event.result.number == 0:
            server.stop(signal.SIGQUIT)
            back.start()
        if isinstance(event, TrialFinished) and event.result.number == 2:
            time.sleep(0.5)

    try:
        outcome = search(url, tmp_path, trials=4, sink=sink)
    finally:
        back.join()
    assert len(outcome.results) == 4
    assert "the database cannot be reached: the search goes on" in said[0]
    assert "is back" in said[-1]
    assert not any("s3cret" in each for each in said)
    assert same(trials_in(url, task), study_of(tmp_path).get_trials())


def back_after_a_trial(server: Server, said: list[str]) -> Callable[[Event], None]:
    """A sink that starts the server again when a trial has ended, and keeps what was said."""

    def sink(event: Event) -> None:
        if isinstance(event, Notice):
            said.append(event.text)
        if isinstance(event, TrialFinished) and not event.resumed and server.process is None:
            server.start()

    return sink


def test_a_server_that_goes_away_while_the_study_is_opened_costs_nothing_that_it_held(
    server: Server, url: str, search: Search, task: Task, tmp_path: Path
) -> None:
    first = search(url, tmp_path / "a", trials=2)
    said: list[str] = []
    sink = back_after_a_trial(server, said)
    second = search(url, tmp_path / "b", trials=3, sink=sink, opened=lambda: server.stop(signal.SIGQUIT))
    assert second.results[:2] == first.results
    assert len(second.results) == 3
    assert "the database cannot be reached: the search goes on" in said[0]
    assert "going on with the study in the database, which has 2 finished trials" in said[1]
    assert "is back" in said[-1]
    assert same(trials_in(url, task), study_of(tmp_path / "b").get_trials())


def test_a_server_that_was_restarted_while_candidates_were_looked_at_is_not_noticed(
    server: Server, url: str, search: Search, task: Task, tmp_path: Path
) -> None:
    def restart() -> None:
        server.stop(signal.SIGQUIT)
        server.start()

    said: list[Event] = []
    search(url, tmp_path, trials=1, sink=said.append, opened=restart)
    assert not [each for each in said if isinstance(each, Notice)]
    assert same(trials_in(url, task), study_of(tmp_path).get_trials())


def test_without_the_server_a_search_goes_on_where_it_has_all_that_the_database_held(
    server: Server, url: str, search: Search, task: Task, tmp_path: Path
) -> None:
    first = search(url, tmp_path / "a", trials=2)
    with pytest.raises(InputError, match="password authentication failed"):
        search(url.replace("s3cret", "wrong"), tmp_path / "a", trials=3)
    said: list[str] = []
    server.stop(signal.SIGQUIT)
    try:
        with pytest.raises(InputError, match="the database of --storage cannot be used: start the server"):
            search(url, tmp_path / "b", trials=3)  # only the database knows what there is
        assert not (tmp_path / "b").exists()
        with pytest.raises(InputError, match="start the server"):
            search(url + "_other", tmp_path / "a", trials=3)
        second = search(url, tmp_path / "a", trials=3, sink=back_after_a_trial(server, said))
    finally:
        if server.process is None:
            server.start()
    assert second.results[:2] == first.results
    assert len(second.results) == 3
    assert "the database cannot be reached: the search goes on" in said[0]
    assert "is back" in said[-1]
    assert same(trials_in(url, task), study_of(tmp_path / "a").get_trials())


def test_what_another_search_wrote_while_the_server_was_away_from_here_is_not_mixed(
    server: Server, url: str, search: Search, task: Task, tmp_path: Path
) -> None:
    search(url, tmp_path / "a", trials=1)
    search(url, tmp_path / "b", trials=3)
    said: list[str] = []
    server.stop(signal.SIGQUIT)
    try:
        search(url, tmp_path / "a", trials=2, sink=back_after_a_trial(server, said))
    finally:
        if server.process is None:
            server.start()
    assert "is no longer written: another search went on with the study meanwhile" in said[-1]
    assert same(trials_in(url, task), study_of(tmp_path / "b").get_trials())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda url: url.replace("s3cret", "wrong"), "password authentication failed"),
        (lambda url: re.sub(r":\d+/", ":1/", url), "[Cc]onnection refused"),
        (lambda url: url + "_missing", "does not exist"),
        (lambda _: f"sqlite:///{PASSWORD}.db", r"must be postgresql://USER@HOST/DATABASE .*but got 'sqlite"),
        (lambda _: f"post gres:/{PASSWORD}", "that are no address"),
        (lambda url: url + "?passfile=/s3cret", "must|cannot be used"),
    ],
    ids=["wrong password", "no server", "no database", "sqlite", "no address", "query"],
)
def test_what_cannot_be_used_is_said_in_one_line_without_the_password(
    url: str, change: Callable[[str], str], what: str, tmp_path: Path
) -> None:
    told = change(url)
    if "passfile" in told:
        told = told.replace(PASSWORD.replace("/", "%2F").replace("@", "%40"), "wrong")
    with pytest.raises(InputError, match=what) as caught, \
            mirrored(told, task="t" * 64, workdir=tmp_path, sink=print):  # fmt: skip
        pass
    assert "\n" not in str(caught.value)
    assert not [word for word in ("s3cret/w@rd", "s3cret%2F", "wrong%2F", "wrong/w") if word in str(caught.value)]


def test_a_holder_is_told_whatever_its_folder_is_called() -> None:
    for name in ("plain", "*/ DROP TABLE x; --", "ü" * 300, "a\nb"):
        me = Holder.here(Path("/") / name)
        assert "\n" not in me.comment()
        assert len(me.comment()) < 1000
        assert Holder.told(f"SELECT 1 {me.comment()}") == me
    assert Holder.told("SELECT 1 /* vlmsel-auto AAAA */") is None
    assert Holder.told(None) is None
