"""The contract that every engine keeps."""

import os
import signal
import time

import numpy as np
import pytest

from helpers.engine_jobs import (
    Alternating,
    Counting,
    Deadly,
    Raising,
    Square,
    Summing,
    Unpicklable,
    Waiting,
)
from helpers.engine_world import APART, PARAMS, as_completed
from vlmsel_auto.engines.engine import Cancelled, Done, Failed, Lost, Resources
from vlmsel_auto.engines.in_process import InProcess

ENGINES = {"in process": InProcess, **APART}


@pytest.fixture(scope="module", params=["in process", *PARAMS])
def engine(request):
    with ENGINES[request.param]() as opened:
        yield opened


@pytest.fixture
def apart(engine):
    if isinstance(engine, InProcess):
        pytest.skip("its jobs are in this process")
    return engine


def test_each_result_comes_back_once(engine):
    tickets = {engine.submit(Square(number=number)): number for number in range(6)}
    found = list(as_completed(engine))
    assert {each.ticket: each.result for each in found} == {ticket: n**2 for ticket, n in tickets.items()}
    assert len(found) == 6
    assert engine.finished(timeout=0.01) is None


def test_a_job_that_raises_becomes_a_record_and_stops_no_other(engine):
    bad, good = engine.submit(Raising()), engine.submit(Square(number=3))
    found = {each.ticket: each for each in as_completed(engine)}
    assert isinstance(found[bad], Failed)
    assert (found[bad].failure.kind, found[bad].failure.errno) == ("OSError", 28)
    assert "no space left" in found[bad].failure.text
    assert found[good] == Done(ticket=good, result=9)


def test_what_a_job_tells_arrives_in_order_and_before_its_result(engine):
    heard = []
    ticket = engine.submit(Counting(most=8, pause=0.0), told=heard.append)
    assert engine.finished() == Done(ticket=ticket, result=8)
    assert heard == list(range(8))


def test_a_job_ends_early_when_it_is_asked_to(engine):
    heard = []

    def told(item):
        heard.append(item)
        if item == 3:
            engine.stop(ticket)

    ticket = engine.submit(Counting(most=500), told=told)
    outcome = engine.finished()
    assert isinstance(outcome, Done)
    assert 3 <= outcome.result < 100
    later = engine.submit(Counting(most=5))  # the wish was for that job alone
    assert engine.finished() == Done(ticket=later, result=5)


def test_a_queued_job_can_be_cancelled(engine):
    first = [engine.submit(Square(number=n, seconds=0.3)) for n in range(engine.slots)]
    last = engine.submit(Square(number=9))
    engine.cancel(last)
    found = {each.ticket: type(each) for each in as_completed(engine)}
    assert found == {**dict.fromkeys(first, Done), last: Cancelled}


def test_a_shared_value_is_what_was_shared_and_threads_are_limited(engine):
    shared = engine.share(np.arange(1000.0))
    tickets = [engine.submit(Summing(shared=shared), resources=Resources(threads=1)) for _ in range(3)]
    found = {each.ticket: each.result for each in as_completed(engine)}
    assert sorted(found) == tickets
    assert {(total, threads) for total, _, threads in found.values()} == {(499500.0, 1)}


def test_several_shared_values_are_fetched_once_each(engine):
    shared = tuple(engine.share(np.arange(number)) for number in range(3))
    ticket = engine.submit(Alternating(shared=shared))
    assert engine.finished() == Done(ticket=ticket, result=True)


def test_jobs_come_in_the_order_in_which_they_finish(apart, tmp_path):
    slow, quick = apart.submit(Waiting(file=tmp_path / "go")), apart.submit(Square(number=2))
    assert apart.finished() == Done(ticket=quick, result=4)
    (tmp_path / "go").touch()
    assert apart.finished() == Done(ticket=slow, result=None)


def test_waiting_ends_when_its_time_is_over(apart, tmp_path):
    ticket = apart.submit(Waiting(file=tmp_path / "go"))
    assert apart.finished(timeout=0.05) is None
    (tmp_path / "go").touch()
    assert apart.finished() == Done(ticket=ticket, result=None)


@pytest.mark.parametrize("kills", [1, 2])
def test_a_job_whose_worker_dies_runs_again(apart, tmp_path, kills):
    other = apart.submit(Square(number=5, seconds=0.5))
    ticket = apart.submit(Deadly(folder=tmp_path, kills=kills))
    found = {each.ticket: each for each in as_completed(apart)}
    assert found[ticket] == Done(ticket=ticket, result=kills + 1)
    assert found[other] == Done(ticket=other, result=25)
    assert len(list(tmp_path.iterdir())) == kills + 1


def test_a_job_that_kills_its_worker_each_time_is_set_aside_after_two_more_tries(apart, tmp_path):
    other = apart.submit(Square(number=5))
    ticket = apart.submit(Deadly(folder=tmp_path, kills=99))
    found = {each.ticket: each for each in as_completed(apart)}
    assert found == {ticket: Lost(ticket=ticket), other: Done(ticket=other, result=25)}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_running_job_is_cancelled_at_once_and_its_worker_replaced(apart):
    heard = []
    ticket = apart.submit(Counting(most=10_000), told=heard.append)
    while not heard:
        apart.finished(timeout=0.05)
    began = time.monotonic()
    apart.cancel(ticket)
    assert apart.finished() == Cancelled(ticket=ticket)
    assert time.monotonic() - began < 5
    again = apart.submit(Square(number=4))
    assert apart.finished() == Done(ticket=again, result=16)


@pytest.mark.parametrize("inward", [True, False])
def test_what_cannot_be_pickled_fails_alone(apart, inward):
    bad, good = apart.submit(Unpicklable(inward=inward)), apart.submit(Square(number=3))
    found = {each.ticket: each for each in as_completed(apart)}
    assert isinstance(found[bad], Failed)
    assert "pickle" in str(found[bad].failure)
    assert found[good] == Done(ticket=good, result=9)


def test_workers_are_other_processes_and_stay(apart):
    shared = apart.share(np.ones(3))
    pids = set()
    for _ in range(3):
        apart.submit(Summing(shared=shared))
        pids.add(apart.finished().result[1])
    assert os.getpid() not in pids
    assert len(pids) <= apart.slots


def test_an_idle_worker_that_is_killed_is_replaced(apart):
    shared = apart.share(np.ones(3))
    for _ in range(2):
        apart.submit(Summing(shared=shared))
        os.kill(apart.finished().result[1], signal.SIGKILL)
        time.sleep(0.3)
    ticket = apart.submit(Square(number=2))
    assert apart.finished() == Done(ticket=ticket, result=4)
