"""The leading trial as a model folder while the search goes on: whoever kills it has a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Event, Notice, Sink, TrialFinished
from vlmsel_auto.pipeline.export import export_joined
from vlmsel_auto.pipeline.joined import Joined, calibrated, held_out_of
from vlmsel_auto.process import release_memory
from vlmsel_auto.records import Candidate, Task, TrialResult
from vlmsel_auto.tuning.checkpoints import load_trial

_SHARE: Final = 0.03  # of the time, at most, for exports that may be replaced


@dataclass(kw_only=True, eq=False)
class BestSoFar:
    """A sink that exports the leader of finished trials to ``workdir/model``, before the events go on.

    The first is exported at once, a better one as soon as all exports together took no more than 3 % of the time.
    """

    sink: Sink
    task: Task
    candidates: Sequence[Candidate]
    workdir: Path
    began: float = field(default_factory=time.monotonic)
    exported: TrialResult | None = None  # whose model is in ``workdir/model``
    _spent: float = 0.0
    _tried: int | None = None  # number of the last trial that was to be exported

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, TrialFinished) and event.leader is not None and not event.resumed:
            self._keep(event.leader)
        self.sink(event)

    def _keep(self, leader: TrialResult) -> None:
        begun = time.monotonic()
        if leader.number == self._tried or self._spent > _SHARE * (begun - self.began):
            return
        candidate = next(one for one in self.candidates if one.id == leader.spec.candidate)
        try:
            joined = calibrated(
                Joined(
                    trial=leader,
                    fits=1,
                    held_out=held_out_of(leader, (), task=self.task, workdir=self.workdir),
                    checkpoint=load_trial(self.workdir, leader),
                ),
                task=self.task,
            )
            self.exported = None
            export_joined(joined, candidate=candidate, task=self.task, directory=self.workdir / "model")
            self.exported = leader
        except VlmselError as error:
            self.sink(Notice(text=f"the best model so far was not exported: {error}", level="warning"))
        self._tried = leader.number
        self._spent += time.monotonic() - begun
        release_memory()
