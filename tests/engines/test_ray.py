"""Ray clusters of several nodes on this machine."""

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.engine_jobs import Counting, Square
from helpers.engine_world import as_completed
from vlmsel_auto.engines.engine import Done, Resources
from vlmsel_auto.engines.ray import RayEngine
from vlmsel_auto.errors import InputError

ray = pytest.importorskip("ray")


@pytest.fixture(autouse=True, scope="module")
def _workers_find_the_jobs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="module")
def cluster(_workers_find_the_jobs):
    from ray.cluster_utils import Cluster

    opened = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1, "include_dashboard": False, "_system_config": {"health_check_period_ms": 500},
        },
    )  # fmt: skip
    yield opened
    opened.shutdown()


@pytest.mark.slow
def test_a_node_that_goes_away_costs_only_time(cluster):
    second = cluster.add_node(num_cpus=1, resources={"second": 1})
    cluster.wait_for_nodes()
    with RayEngine(cluster.address) as engine:
        assert engine.slots == 2
        heard = []
        tickets = [engine.submit(Counting(most=150, pause=0.02), told=heard.append) for _ in range(2)]
        while heard.count(5) < 2:
            engine.finished(timeout=0.05)
        cluster.remove_node(second, allow_graceful=False)
        began = time.monotonic()
        found = {each.ticket: each for each in as_completed(engine)}
        assert found == {ticket: Done(ticket=ticket, result=150) for ticket in tickets}
        assert heard.count(0) == 3  # the job of the lost node was begun again
        while engine.slots > 1 and time.monotonic() - began < 60:  # the cluster says so after missed heartbeats
            time.sleep(0.1)
        assert engine.slots == 1
        assert time.monotonic() - began < 60


@pytest.mark.slow
def test_a_job_that_fits_nowhere_has_the_largest_node_to_itself(cluster):
    with RayEngine(cluster.address) as engine:
        ticket = engine.submit(Square(number=3), resources=Resources(memory=10**15))
        assert engine.finished(timeout=60) == Done(ticket=ticket, result=9)


LISTENING = """
import psutil
from vlmsel_auto.engines.ray import RayEngine
from vlmsel_auto.errors import InputError
with RayEngine(cpus=1):
    mine = psutil.Process()
    for process in (mine, *mine.children(recursive=True)):
        for each in process.net_connections(kind="tcp"):
            if each.status == psutil.CONN_LISTEN:
                print("listens on", each.laddr.ip, flush=True)
"""


@pytest.mark.slow
def test_who_handles_sigterm_still_does(cluster):
    before = signal.getsignal(signal.SIGTERM)
    with RayEngine(cluster.address):
        assert signal.getsignal(signal.SIGTERM) is before


INTERRUPTED = """
import os, signal, threading
import ray
from vlmsel_auto.engines.ray import RayEngine
from vlmsel_auto.process import terminable

with terminable():
    threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
        RayEngine(cpus=1)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.slow
def test_sigterm_while_ray_starts_ends_as_ctrl_c_does():
    ran = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout) == (0, "interrupted\n"), ran.stderr


@pytest.mark.slow
def test_a_ray_that_is_started_here_listens_on_loopback_alone():
    done = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=120, check=True)
    lines = done.stdout.splitlines()  # where the machine is busy, Ray tells of itself between them
    found = {line.removeprefix("listens on ") for line in lines if line.startswith("listens on ")}
    assert found
    assert {ip.removeprefix("::ffff:") for ip in found} <= {"127.0.0.1", "::1"}
    assert done.stderr == ""


@pytest.mark.slow
def test_a_ray_that_this_process_uses_already_is_left_running(cluster):
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        with RayEngine() as engine:
            ticket = engine.submit(Square(number=2))
            assert engine.finished() == Done(ticket=ticket, result=4)
        assert ray.is_initialized()
    finally:
        ray.shutdown()


@pytest.mark.parametrize(("address", "told"), [("local", "Ray did not start"), ("auto", "no Ray cluster answers")])
def test_a_ray_that_does_not_come_up_in_time_is_said_in_one_line(monkeypatch, address, told):
    def late(**_):
        raise Exception("The current node timed out during startup.")  # noqa: TRY002 - what ray.init raises

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(InputError, match=rf"{told}.*but got '{address}': The current node timed out"):
        RayEngine(address)
