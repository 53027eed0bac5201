"""Work on images is told once it has taken a while, in about a hundred steps."""

import pytest

from vlmsel_auto.events import Event, StageFinished, StageProgress, StageStarted
from vlmsel_auto.tasks.progress import ImageProgress


def run(total: int, *, after: float) -> list[Event]:
    events: list[Event] = []
    progress = ImageProgress(sink=events.append, total=total, text="reading", after=after)
    for done in range(1, total + 1):
        progress(done)
    progress.finish("read")
    return events


@pytest.mark.parametrize("total", [1, 99, 1_234])
def test_about_a_hundred_steps_between_start_and_end(total: int) -> None:
    events = run(total, after=0)
    assert events[0] == StageStarted(stage="images", total=total, text="reading")
    assert isinstance(events[-1], StageFinished)
    assert events[-1].text == "read"
    done = [event.done for event in events[1:-1] if isinstance(event, StageProgress)]
    assert len(done) == len(events) - 2 <= 110
    assert done == sorted(done)
    assert done[-1] == total


def test_quick_work_is_not_told() -> None:
    assert run(50, after=1_000) == []
