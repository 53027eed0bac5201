"""From a trial that the study began to a job of an engine, and back."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from vlmsel_auto.engines.engine import Engine, Resources, Shared, Ticket, Told
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.records import PixelSource, TrialSpec
from vlmsel_auto.study.luggage import Files, Home, Luggage, files_in, mark, unmark, unpack
from vlmsel_auto.study.optuna_study import RunningTrial
from vlmsel_auto.study.runner import TrialRunner
from vlmsel_auto.study.trial_job import TrialJob
from vlmsel_auto.tasks.pixels import pack
from vlmsel_auto.tuning.checkpoints import trial_dir


@dataclass(frozen=True, kw_only=True, eq=False)
class Dispatch:
    """Sends the trials of one search to an engine."""

    engine: Engine
    runner: TrialRunner
    name: str = field(default_factory=lambda: secrets.token_hex(8))  # of this run of the search
    _models: dict[str, Shared[Files]] = field(default_factory=dict)

    def submit(
        self, trial: RunningTrial, spec: TrialSpec, *, deadline: float | None, seconds: float | None, told: Told
    ) -> Ticket:
        """Begin a trial that must be over at ``deadline`` (`time.monotonic`) and is expected to take ``seconds``."""
        job = TrialJob(
            home=self._home(spec.candidate, trial.continues),
            spec=spec,
            number=trial.number,
            origin=trial.origin,
            deadline=_time_of_day(deadline),
            continues=trial.continues,
        )
        # another try is a trial of its own, which goes on from the state that this one kept
        return self.engine.submit(job, resources=self._resources(spec.candidate, seconds), told=told, tries=1)

    def receive(self, number: int, files: Files) -> None:
        """Keep the files that came back with a trial."""
        unpack(files, trial_dir(self.runner.workdir, number))

    def _resources(self, candidate: str, seconds: float | None) -> Resources:
        memory: int | None = None
        with suppress(OSError):  # the folder of a candidate is gone: its trial will say so
            memory = facts_of(self.runner.table[candidate]).memory_bytes
        gpus = 1.0 if self.runner.device.type == "cuda" else 0.0
        return Resources(gpus=gpus, memory=memory or 0, seconds=seconds)

    def close(self) -> None:
        """Leave nothing in the work directory."""
        unmark(self.runner.workdir)

    @cached_property
    def _shared(self) -> Shared[TrialRunner]:
        if self.engine.apart:
            mark(self.runner.workdir, self.name)
        return self.engine.share(self.runner)

    @cached_property
    def _pixels(self) -> Shared[PixelSource]:
        views = [each.view for each in self.runner.table.values()]
        return self.engine.share(pack(self.runner.task, views))

    def _home(self, candidate: str, earlier: int | None) -> Home:
        """For a job on a candidate that needs the files of an ``earlier`` trial."""
        luggage = self._luggage(candidate, earlier) if self.engine.apart else None
        return Home(runner=self._shared, mark=self.name, luggage=luggage)

    def _luggage(self, name: str, earlier: int | None) -> Luggage:
        candidate, workdir = self.runner.table[name], self.runner.workdir
        if candidate.path is not None and candidate.id not in self._models:
            self._models[candidate.id] = self.engine.share(files_in(candidate.path))
        trials = {} if earlier is None else {earlier: files_in(trial_dir(workdir, earlier))}
        return Luggage(pixels=self._pixels, models=dict(self._models), trials=trials)


def _time_of_day(deadline: float | None) -> float | None:
    """From `time.monotonic` to `time.time`."""
    return None if deadline is None else time.time() + deadline - time.monotonic()
