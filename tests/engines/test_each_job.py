"""One loop over jobs: each once, at most so many at a time, and what runs is cancelled when nobody listens any more."""

from contextlib import closing
from pathlib import Path

from helpers.engine_jobs import Marking
from vlmsel_auto.engines.each_job import as_they_end, why_not
from vlmsel_auto.engines.engine import Lost, Ticket
from vlmsel_auto.engines.in_process import InProcess


def test_jobs_end_under_their_keys_and_the_next_is_asked_for_when_there_is_room(tmp_path: Path) -> None:
    told: list[str] = []
    jobs = {name: Marking(name=name, folder=tmp_path, fault="raise" if name == "b" else "") for name in "abc"}
    waiting = iter(jobs.items())

    def following() -> tuple[str, Marking] | None:
        told.append("asked")
        return next(waiting, None)

    with InProcess() as engine:
        for key, outcome in as_they_end(engine, following):
            told.append(f"{key}: {why_not(outcome)}")
    assert told == ["asked", "a: ", "asked", "b: OSError: no luck", "asked", "c: ", "asked"]
    assert "out of memory?" in why_not(Lost(ticket=Ticket(1)))


def test_who_stops_early_leaves_nothing_running(tmp_path: Path) -> None:
    jobs = iter([(name, Marking(name=name, folder=tmp_path)) for name in "abcd"])
    with InProcess() as engine:
        earlier = engine.submit(Marking(name="earlier", folder=tmp_path))
        with closing(as_they_end(engine, lambda: next(jobs, None), in_line=2)) as ending:
            assert next(ending)[0] == "a"  # and not the one of before
        while engine.finished() is not None:
            pass
        assert earlier
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "earlier"]
