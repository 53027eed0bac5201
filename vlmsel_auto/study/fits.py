"""Fits of finished trials' towers on all labels: who may have one, and what becomes of those that were begun."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from vlmsel_auto.engines.engine import Done, Failed, Finished, Ticket
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.process import is_disk_error
from vlmsel_auto.records import TrialResult
from vlmsel_auto.study.dispatch import Dispatch
from vlmsel_auto.study.trial_job import Fitted
from vlmsel_auto.tuning.checkpoints import drop_other_weights
from vlmsel_auto.tuning.methods import method_of
from vlmsel_auto.tuning.run import seconds_on_all_labels

Wanted: TypeAlias = Callable[[TrialResult, Sequence[TrialResult]], Sequence[int]]  # see `study.run_study`


def leader_alone(leader: TrialResult, members: Sequence[TrialResult]) -> list[int]:
    """The user gets the leader's model and no other."""
    del members
    return [leader.number]


@dataclass(kw_only=True, eq=False)
class Fits:
    """Fits that run, by the ticket of their job, and those that were made in vain.

    The last trials of a search leave workers free, which begin the fits that come next; so these outlast the trials.
    """

    running: dict[Ticket, TrialResult] = field(default_factory=dict)
    in_vain: set[int] = field(default_factory=set)  # numbers of the trials

    def can_begin(self, trial: TrialResult, *, folds: int, left: float | None) -> bool:
        """Whether a fit of this trial is missing, can be made, and ends within ``left`` seconds; None: no end.

        Without ``folds`` none can: the user's own validation images only decide.
        """
        if not folds or method_of(trial.spec.method).trains is not Trains.TOWER or trial.on_all_labels:
            return False
        if trial.number in self.in_vain or any(each.number == trial.number for each in self.running.values()):
            return False
        return left is None or seconds_on_all_labels(trial, folds=folds) <= left

    def begin(self, trial: TrialResult, *, dispatch: Dispatch, deadline: float | None, price: float) -> None:
        """Begin the fit, which must be over at ``deadline`` (`time.monotonic`); further fits at a ``price``."""
        needed = seconds_on_all_labels(trial, folds=len(dispatch.runner.task.folds))
        self.running[dispatch.submit_fit(trial, deadline=deadline, seconds=needed, price=price)] = trial

    def end(self, dispatch: Dispatch, *, besides: Collection[int] = ()) -> None:
        """End the fits that run, but those of trials with these numbers; what they may have written goes too."""
        for ticket, trial in [each for each in self.running.items() if each[1].number not in besides]:
            dispatch.engine.cancel(ticket)
            drop_other_weights(dispatch.runner.workdir, trial)
            del self.running[ticket]

    def settle(self, ended: Finished, *, dispatch: Dispatch, sink: Sink) -> TrialResult | None:
        """The trial after its fit, whose weights are its own once this is saved; None: it stays as it is.

        Raises:
            OSError: the work directory cannot be written.
        """
        trial = self.running.pop(ended.ticket)
        match ended:
            case Done(result=Fitted() as fitted):
                dispatch.receive(trial.number, fitted.files)
                if fitted.result is None:
                    self.in_vain.add(trial.number)
                return fitted.result
            case Failed(failure=failure):
                error = failure.os_error()
                if error is not None and is_disk_error(error):
                    raise error
                reason = failure.text
            case _:
                reason = "its worker died each time (out of memory?)"
        self.in_vain.add(trial.number)
        sink(Notice(text=f"trial {trial.number} stays as it is, not fitted on all labels: {reason}", level="warning"))
        return None
