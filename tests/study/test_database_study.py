"""One study in a real PostgreSQL server: locked, read as it was written, and never a password in an error."""

from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from helpers.postgres import Server
from helpers.postgres_world import NEEDS_SERVER, PASSWORD, server
from vlmsel_auto.errors import InputError
from vlmsel_auto.study.database import HeldError, Holder, database_url, engine_of
from vlmsel_auto.study.database_study import DatabaseStudy, connect, quiet_optuna, usable

__all__ = ["server"]  # a fixture

pytest.importorskip("psycopg", reason="needs the extra postgresql")
pytestmark = NEEDS_SERVER


@pytest.fixture
def opened(server: Server, tmp_path: Path) -> Iterator[Callable[[], DatabaseStudy]]:
    url = database_url(server.url)
    engine = engine_of(url)
    yield lambda: connect(url, engine=engine, study="one", me=Holder.here(tmp_path))
    engine.dispose()


def test_what_is_written_is_held_and_what_changed_is_written_again(opened: Callable[[], DatabaseStudy]) -> None:
    with quiet_optuna():
        journal = optuna.create_study(direction="maximize")
    first = opened()
    try:
        assert first.held().trials == []
        running_trial = journal.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        running_trial.report(0.25, 1)
        first.write(journal.get_trials(deepcopy=False), about={"task": "digits", "expected": {}})
        journal.tell(running_trial, 0.5)
        first.write(journal.get_trials(deepcopy=False), about={"task": "digits", "expected": {"0": 0.4}})
    finally:
        first.close()
    second = opened()  # the lock is free again
    try:
        held = second.held()
        assert held.about == {"task": "digits", "expected": {"0": 0.4}}
        (trial,) = held.trials
        (ours,) = journal.get_trials()
        assert (trial.value, trial.params, trial.intermediate_values) == (0.5, ours.params, {1: 0.25})
    finally:
        second.close()


def test_one_process_at_a_time(opened: Callable[[], DatabaseStudy]) -> None:
    held = opened()
    try:
        with pytest.raises(HeldError):
            opened()
    finally:
        held.close()


def test_what_cannot_be_used_is_one_line_without_the_password(server: Server) -> None:
    url = database_url(server.url)
    words = r"database of --storage cannot be used: .*but got no such thing \*\*\*$"
    with pytest.raises(InputError, match=words), usable(url):
        raise RuntimeError(f"no such thing {PASSWORD}")
