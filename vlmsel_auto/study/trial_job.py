"""A trial as a job of an engine: a record that a worker can run anywhere, and what comes back."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vlmsel_auto.engines.engine import Channel
from vlmsel_auto.records import TrialOrigin, TrialSpec
from vlmsel_auto.study.luggage import Files, Home, taken
from vlmsel_auto.study.runner import Attempt


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What a worker gives back."""

    attempt: Attempt
    files: Files  # of the trial, where the work directory was not to be seen


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialJob:
    """One trial."""

    home: Home
    spec: TrialSpec
    number: int
    origin: TrialOrigin
    deadline: float | None  # `time.time`: clocks of nodes agree, their monotonic ones do not
    continues: int | None

    def run(self, channel: Channel) -> Ran:
        """Run it. Its events are told; it ends after the epoch in which the coordinator asked for that.

        Raises:
            OSError: its files cannot be written.
        """
        runner, away = self.home.open(self.spec.candidate)
        attempt = runner.attempt(
            self.spec,
            number=self.number,
            origin=self.origin,
            report=lambda *_: channel.stopping,
            deadline=_monotonic(self.deadline),
            continues=self.continues,
            sink=channel.tell,
        )
        return Ran(attempt=attempt, files=taken(runner.workdir, self.number) if away else {})


def _monotonic(deadline: float | None) -> float | None:
    """From `time.time` to `time.monotonic`."""
    return None if deadline is None else time.monotonic() + deadline - time.time()
