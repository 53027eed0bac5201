import time

import pytest

from vlmsel_auto.tuning.work import NOTHING, Deadline, DeadlineReached, Ending, never


def test_a_deadline_is_checked_with_a_reserve() -> None:
    Deadline().check(reserve=1e9)  # None never comes
    soon = Deadline(time.monotonic() + 60)
    assert not soon.passed()
    assert soon.passed(reserve=61)
    with pytest.raises(DeadlineReached):
        soon.check(reserve=61)


def test_nothing_is_a_trial_that_the_clock_ended() -> None:
    assert NOTHING.ending is Ending.DEADLINE
    assert NOTHING.checkpoint is None
    assert not never(1, 0.5, 0.5)
