"""How many threads torch computes with on a processor: as many as measured throughput says, measured again at times.

Threads wait for each other after every operator. Beside one busy process two threads on two cores train a small tower
slower than one does, and on a quiet machine faster; nothing tells but the clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

_WARM, _BATCHES = 1, 4  # batches after a change that do not count, and that do
_HOPELESS: Final = 1.25  # times the best seconds: fewer threads are not tried
_DROPPED: Final = 1.6  # times the seconds that were known: the machine has become another
_PATIENCE: Final = (5.0, 120.0)  # seconds between two rounds of trying, at least and at most
_LOST_SHARE: Final = 0.03  # of the time, at most, that trying loses against the best number


class ThreadChoice:
    """Chooses among ``most`` threads, half as many, ... one, by the seconds of batches; takes the time from outside."""

    def __init__(self, most: int) -> None:
        self._options = [most >> halving for halving in range(most.bit_length())]
        self.threads = most
        self._trying = len(self._options) > 1
        self._began = 0.0
        self._patience = _PATIENCE[0]
        self._tried: dict[int, float] = {}
        self._known: float | None = None
        self._seen: list[float] = []

    def begin(self) -> None:
        """Other work: what an image took says nothing any more."""
        self._known = None
        self._seen.clear()
        if self._trying:
            self._tried.clear()
            self.threads = self._options[0]

    def observe(self, seconds: float, *, images: int, now: float) -> int:
        """Take the seconds of a batch of so many images; the number of threads for the next."""
        if len(self._options) == 1:
            return self.threads
        self._seen.append(seconds / images)
        if len(self._seen) == _WARM + _BATCHES:
            mean = sum(self._seen[_WARM:]) / _BATCHES
            self._seen.clear()
            if self._trying:
                self._try_on(mean, images=images, now=now)
            else:
                self._look_again(mean, now)
        return self.threads

    def _try_on(self, mean: float, *, images: int, now: float) -> None:
        self._tried[self.threads] = mean
        fewer = [each for each in self._options if each < min(self._tried)]
        if fewer and mean < _HOPELESS * min(self._tried.values()):
            self.threads = fewer[0]
            return
        self.threads = min(self._tried, key=self._tried.__getitem__)
        self._known = self._tried[self.threads]
        lost = (_WARM + _BATCHES) * sum(each - self._known for each in self._tried.values()) * images
        self._patience = min(max(lost / _LOST_SHARE, _PATIENCE[0]), _PATIENCE[1])
        self._began, self._trying = now, False

    def _look_again(self, mean: float, now: float) -> None:
        if self._known is None:
            self._known = mean
        if mean > _DROPPED * self._known or now - self._began > self._patience:
            self._tried.clear()
            self.threads, self._began, self._trying = self._options[0], now, True


class Threads:
    """Tells a `ThreadChoice` what batches take, and torch what it chose; without one nothing."""

    def __init__(self, choice: ThreadChoice | None) -> None:
        self._choice = choice
        self._last = time.monotonic()

    def start(self) -> None:
        """A batch begins."""
        self._last = time.monotonic()

    def done(self, images: int) -> None:
        """The batch is over."""
        if self._choice is not None:
            now = time.monotonic()
            chosen = self._choice.observe(now - self._last, images=images, now=now)
            if chosen != torch.get_num_threads():
                torch.set_num_threads(chosen)


_CHOICES: Final[dict[int, ThreadChoice]] = {}  # by most threads: what one trial found out serves the next


@contextmanager
def measured_threads(device: torch.device) -> Iterator[Threads]:
    """Let torch compute with as many threads as serve the batches within; afterwards it has those that it had.

    Never more than torch has now: who limits them, by ``OMP_NUM_THREADS`` say, is obeyed. On an accelerator nothing
    changes.
    """
    most = torch.get_num_threads()
    if device.type != "cpu":
        yield Threads(None)
        return
    choice = _CHOICES.setdefault(most, ThreadChoice(most))
    choice.begin()
    torch.set_num_threads(choice.threads)
    try:
        yield Threads(choice)
    finally:
        torch.set_num_threads(most)
