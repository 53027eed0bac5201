"""The number of threads follows what batches take."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.models.threads import ThreadChoice, measured_threads


def work(choice: ThreadChoice, seconds, *, until: float, now: float = 0.0) -> tuple[float, float]:
    """Batches of one image until a time; ``seconds`` by threads. When it ended, and the time with the best number."""
    best, well = min(seconds, key=seconds.get), 0.0
    while now < until:
        took = seconds[choice.threads]
        well += took * (choice.threads == best)
        now += took
        choice.observe(took, images=1, now=now)
    return now, well


QUIET, BUSY = {2: 0.08, 1: 0.14}, {2: 0.25, 1: 0.15}


@pytest.mark.parametrize("seconds", [QUIET, BUSY, {8: 0.5, 4: 0.3, 2: 0.2, 1: 0.4}])
def test_nearly_all_of_the_time_the_best_number_computes(seconds):
    now, well = work(ThreadChoice(max(seconds)), seconds, until=200.0)
    assert well / now > 0.9


def test_a_neighbour_that_comes_and_goes_is_noticed():
    choice = ThreadChoice(2)
    now, _ = work(choice, QUIET, until=60.0)
    assert choice.threads == 2
    begun = now
    while choice.threads == 2:
        now, _ = work(choice, BUSY, until=now + 0.1, now=now)
    now, _ = work(choice, BUSY, until=now + 5.0, now=now)
    assert choice.threads == 1
    assert now - begun < 10.0
    now, _ = work(choice, QUIET, until=now + 60.0, now=now)
    assert choice.threads == 2


def test_other_work_is_no_drop():
    choice = ThreadChoice(2)
    now, _ = work(choice, QUIET, until=5.0)
    choice.begin()
    slow = {2: 0.8, 1: 1.4}
    for _ in range(10):
        now += slow[2]
        assert choice.observe(slow[2], images=1, now=now) == 2


def test_two_kinds_of_work_are_not_compared():
    choice = ThreadChoice(2)
    now, _ = work(choice, {2: 0.01, 1: 0.02}, until=0.06)  # two threads are tried on, one is not
    choice.begin()
    work(choice, BUSY, until=now + 5.0, now=now)
    assert choice.threads == 1


@given(most=st.integers(1, 64), seconds=st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=60))
def test_never_more_than_allowed_nor_none(most, seconds):
    choice, now = ThreadChoice(most), 0.0
    for each in seconds:
        now += each
        assert 1 <= choice.observe(each, images=1, now=now) <= most


def test_torch_has_its_threads_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with measured_threads(torch.device("cpu")) as threads:
            used = set()
            for _ in range(12):
                threads.start()
                used.add(torch.get_num_threads())
                threads.done(4)
        assert used == {1, 2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
