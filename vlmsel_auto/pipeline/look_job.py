"""A look as a job of an engine."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vlmsel_auto.cache import Store
from vlmsel_auto.engines.engine import Channel, Shared
from vlmsel_auto.measuring.measure import embed_target
from vlmsel_auto.models.download import fetch
from vlmsel_auto.pipeline.attempt import attempt
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.records import Candidate, Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a look showed."""

    measurement: Measurement
    seconds: float  # without the download
    download_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LookJob:
    """Load one candidate and embed the images that looks see."""

    candidate: Candidate
    task: Shared[Task]
    device: str
    store: Store  # on a disk that the coordinator sees

    def run(self, channel: Channel) -> Seen | str:
        """What it showed, or why the candidate cannot be used."""
        return attempt(lambda: self._look(channel))

    def _look(self, channel: Channel) -> Seen:
        from vlmsel_auto.models import zoo  # imports open_clip: seconds that are no look's

        began = time.monotonic()
        fetch(self.candidate, sink=channel.tell)
        arrived = time.monotonic()
        model = zoo.load(self.candidate, device=self.device, sink=channel.tell)
        seen = embed_target(model, self.task.get(), store=self.store)
        return Seen(measurement=seen, seconds=time.monotonic() - arrived, download_seconds=arrived - began)
