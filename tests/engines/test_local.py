"""Worker processes of this machine end with their coordinator, however it ends."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from helpers.engine_jobs import Summing
from helpers.engine_world import as_completed
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


def test_what_a_killed_coordinator_shared_is_removed(tmp_path: Path) -> None:
    script = "from vlmsel_auto.engines.local import LocalEngine; LocalEngine(1).share(1); print('shared', flush=True)"
    command = [sys.executable, "-c", f"{script}; input()"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as coordinator:
        assert coordinator.stdout is not None
        assert coordinator.stdout.readline() == b"shared\n"
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
        assert len(list(folder.iterdir())) == 1
        coordinator.kill()
    until = time.monotonic() + 60
    while folder.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_each_worker_has_its_share_of_the_threads_and_a_job_may_name_its_own() -> None:
    with LocalEngine(2, threads=2) as engine:
        shared = engine.share(np.ones(3))
        asked = {engine.submit(Summing(shared=shared), resources=Resources(threads=each)): each for each in (None, 1)}
        for ended in as_completed(engine):
            assert isinstance(ended, Done)
            assert ended.result[2] == (asked[ended.ticket] or 2)
