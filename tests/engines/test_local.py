"""Worker processes of this machine end with their coordinator, however it ends."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from helpers.engine_jobs import Borrowing
from vlmsel_auto.engines.engine import Done, Resources
from vlmsel_auto.engines.local import LocalEngine

COORDINATOR = """
from helpers.engine_jobs import Counting
from vlmsel_auto.engines.local import LocalEngine
engine = LocalEngine(2)
for _ in range(2):
    engine.submit(Counting(most=10**9), told=lambda number: print(number, flush=True))
while True:
    engine.finished(timeout=1.0)
"""


@pytest.mark.parametrize("when", ["they start", "they work"])
def test_no_worker_outlives_a_coordinator_that_is_killed(when: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", COORDINATOR]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as coordinator:
        try:
            assert coordinator.stdout is not None
            if when == "they work":
                for _ in range(2):  # a worker counts up from 0
                    while coordinator.stdout.readline() != b"0\n":
                        assert coordinator.poll() is None
            while len(begun := psutil.Process(coordinator.pid).children(recursive=True)) < 2:
                assert coordinator.poll() is None
                time.sleep(0.01)
        finally:
            coordinator.kill()
    _, left = psutil.wait_procs(begun, timeout=60)
    for each in left:
        each.kill()
    assert not left


def test_a_worker_without_a_job_lends_its_threads_and_takes_them_back() -> None:
    heard: list[object] = []
    with LocalEngine(2, threads=2) as engine:

        def until(count: int) -> None:
            while heard[-1:] != [count]:
                assert engine.finished(timeout=0.05) is None

        long = engine.submit(Borrowing(until=99), told=heard.append)
        until(4)
        other = engine.submit(Borrowing(until=2))
        ended = engine.finished()
        assert isinstance(ended, Done)
        assert ended.ticket == other
        until(4)
        assert [each for each in heard if each] == [4, 2, 4]
        bound = engine.submit(Borrowing(until=1), resources=Resources(threads=1))  # its own number
        ended = engine.finished()
        assert isinstance(ended, Done)
        assert ended.ticket == bound
        engine.stop(long)
        assert isinstance(engine.finished(), Done)
