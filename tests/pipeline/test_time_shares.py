"""A budget of time is shared out without remainder, and its end is kept for export and report."""

import pytest

from vlmsel_auto.pipeline.time_shares import closing_seconds, left_for_trials, sample_seconds, seconds_for_screening
from vlmsel_auto.records import Budget


@pytest.mark.parametrize(("seconds", "kept"), [(10.0, 1.6), (15.0, 2.4), (60.0, 2.5), (3600.0, 2.5)])
def test_seconds_kept_for_the_end(seconds, kept):
    assert closing_seconds(seconds) == pytest.approx(kept)
    assert left_for_trials(Budget(seconds=seconds), spent=2.0).seconds == pytest.approx(seconds - 2.0 - kept)


def test_trials_have_a_moment_even_where_screenings_took_all():
    assert left_for_trials(Budget(seconds=15.0, trials=3), spent=100.0) == Budget(seconds=0.01, trials=3)
    assert left_for_trials(Budget(trials=3), spent=100.0) == Budget(trials=3)


def test_looks_take_everything_but_the_end_where_no_trial_follows():
    assert seconds_for_screening(60.0, labelled=True) == pytest.approx(24.0)
    assert seconds_for_screening(60.0, labelled=False) == pytest.approx(57.5)


def test_a_sample_takes_a_fifth_of_a_short_budget():
    assert sample_seconds(None) == sample_seconds(3600.0) == 60.0
    assert sample_seconds(30.0) == pytest.approx(6.0)
