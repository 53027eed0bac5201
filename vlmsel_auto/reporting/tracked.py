"""The trackers that a search was given, open while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlmsel_auto.errors import InputError
from vlmsel_auto.events import Sink
from vlmsel_auto.reporting.trackers import NAMES, Plain, TrackerSink

if TYPE_CHECKING:
    from vlmsel_auto.reporting.loggers import Loggers  # imports Lightning


@contextmanager
def tracked(loggers: Loggers, *, folder: Path, about: Mapping[str, Plain], sink: Sink) -> Iterator[Sink]:
    """A sink that passes every event on to ``sink`` and logs it to the trackers.

    Args:
        loggers: as for `loggers.open_runs`; none: ``sink`` itself is given back.
        folder: where trackers that are given by name keep their files.
        about: hyperparameters of the search's run; its "task" names it.
        sink: hears everything, and of trackers that fail.

    Raises:
        InputError: an unknown name, or a logger whose trials cannot have runs of their own.
        MissingDependency: a tracker's package is not installed.
    """
    if not loggers:
        yield sink
        return
    from vlmsel_auto.reporting.loggers import open_runs

    tracker = TrackerSink(open_runs(loggers, folder=folder, name=str(about.get("task", "search"))), about, sink=sink)
    try:
        yield tracker
    except BaseException:  # also Ctrl+C: trackers show the run as failed, not as one that still runs
        tracker.close(good=False)
        raise
    tracker.close(good=True)


def names_of(loggers: Loggers) -> list[str]:
    """Trackers that were given by name.

    Raises:
        InputError: there is none of that name.
    """
    several = [loggers] if isinstance(loggers, str) or not isinstance(loggers, Sequence) else loggers
    names = [one for one in several if isinstance(one, str)]
    for name in names:
        if name not in NAMES:
            raise InputError(f"a logger must be one of {', '.join(NAMES)}, but got {name!r}")
    return names
