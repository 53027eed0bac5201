"""A trial as a job of an engine: a record that a worker can run anywhere, and what comes back."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vlmsel_auto.engines.engine import Channel
from vlmsel_auto.records import TrialOrigin, TrialResult, TrialSpec
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
        """Run it. Its events are told; it is paused after the epoch in which the coordinator asked for that.

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What a worker gives back of a final fit."""

    result: TrialResult | None  # None: the trial stays as it is
    files: Files  # as of `Ran`


@dataclass(frozen=True, kw_only=True, slots=True)
class FitJob:
    """The tower of a finished trial once more, on all labels."""

    home: Home
    result: TrialResult
    deadline: float | None  # `time.time`
    price: float  # see `tuning.run.fit_on_all_labels`

    def run(self, channel: Channel) -> Fitted:
        """Fit it.

        Raises:
            TrialFailed: out of memory, diverged, weights missing.
        """
        del channel
        runner, away = self.home.open(self.result.spec.candidate)
        made = runner.fit_on_all_labels(self.result, deadline=_monotonic(self.deadline), price=self.price)
        files = taken(runner.workdir, self.result.number, luggage=self.home.luggage) if away else {}
        return Fitted(result=made, files={} if made is None else files)


def _monotonic(deadline: float | None) -> float | None:
    """From `time.time` to `time.monotonic`."""
    return None if deadline is None else time.monotonic() + deadline - time.time()
