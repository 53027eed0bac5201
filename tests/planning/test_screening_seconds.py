import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.planning.screening_seconds import TimedScreening, screening_seconds

EMBEDDING = np.array([1.0, 4.0, np.nan])
DOWNLOADS = np.array([0.0, 4e8, 2e9])


def seconds(*timed: TimedScreening) -> list[float]:
    return screening_seconds(embedding=EMBEDDING, downloads=DOWNLOADS, timed=timed, bandwidth=1e8).tolist()


def test_before_any_screening_predictions_and_bytes_tell():
    assert seconds() == pytest.approx([0.3 + 1, 0.3 + 4 + 4, 0.3 + 2.5 + 20])


def test_looks_correct_the_embedding_and_tell_the_bandwidth():
    slow = TimedScreening(candidate=0, seconds=2.6, downloaded=4e8, download_seconds=8.0)
    assert seconds(slow) == pytest.approx([2.6, 8.6 + 8, 5.6 + 40])
    small = TimedScreening(candidate=0, seconds=2.6, downloaded=1e3, download_seconds=1.0)
    assert seconds(small) == pytest.approx([2.6, 8.6 + 4, 5.6 + 20])  # a kilobyte tells no bandwidth


@given(st.lists(st.floats(0.1, 100.0), min_size=1, max_size=5))
def test_a_slower_machine_makes_every_screening_longer(times):
    timed = [TimedScreening(candidate=0, seconds=each) for each in times]
    slower = [TimedScreening(candidate=0, seconds=2 * each) for each in times]
    assert np.all(np.array(seconds(*slower)) > np.array(seconds(*timed)))


def test_nothing_known_is_no_error():
    found = screening_seconds(embedding=np.full(2, np.nan), downloads=np.full(2, np.nan), timed=(), bandwidth=1)
    assert found.tolist() == pytest.approx([1.3, 1.3])
