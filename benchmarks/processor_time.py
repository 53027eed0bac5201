"""A clock that counts what threads compute and not how long they wait for a core.

Importing this module turns `time.monotonic`, `time.perf_counter` and `time.time` into it, so it comes before all that
take one of these when they are imported. A thread that has a `Clock` has its own time, the others the main thread's.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

_BEGAN, _TIME_OF_DAY = time.monotonic(), time.time()


@dataclass(eq=False)
class Clock:
    """Of one thread: seconds that it computed on top of when it was set."""

    at: float = _BEGAN
    speed: float = 1.0  # as if a second of computing took 1 / speed
    _computed: float = field(default_factory=time.thread_time)

    def now(self) -> float:
        """Seconds; of the thread that calls."""
        return self.at + (time.thread_time() - self._computed) / self.speed

    def set(self, at: float) -> None:
        """Go on from there; of the thread that calls."""
        self.at, self._computed = at, time.thread_time()


MAIN = Clock()
_own = threading.local()


def use(clock: Clock) -> None:
    """Let this thread have a clock of its own."""
    _own.clock = clock


def _now() -> float:
    clock: Clock = getattr(_own, "clock", MAIN)
    mine = clock is not MAIN or threading.current_thread() is threading.main_thread()
    return clock.now() if mine else clock.at


time.monotonic = time.perf_counter = _now
time.time = lambda: _TIME_OF_DAY - _BEGAN + _now()
