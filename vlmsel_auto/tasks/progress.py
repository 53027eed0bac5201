"""Events of stage "images": a start, about a hundred steps, an end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from vlmsel_auto.events import Sink, StageFinished, StageProgress, StageStarted


@dataclass(kw_only=True, slots=True)
class ImageProgress:
    """Tells a sink of work on ``total`` images, once it has taken ``after`` seconds."""

    sink: Sink
    total: int
    text: str
    after: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _started: bool = False

    def __post_init__(self) -> None:
        """Tell of the start where that need not wait."""
        self._start()

    def __call__(self, done: int) -> None:
        """Tell that so many are done, if the time has come."""
        self._start()
        if self._started and (done == self.total or done % max(1, self.total // 100) == 0):
            self.sink(StageProgress(stage="images", done=done))

    def finish(self, text: str) -> None:
        """Tell of the end, if the start was told."""
        if self._started:
            self.sink(StageFinished(stage="images", seconds=time.monotonic() - self._began, text=text))

    def _start(self) -> None:
        if not self._started and time.monotonic() - self._began >= self.after:
            self._started = True
            self.sink(StageStarted(stage="images", total=self.total, text=self.text))
