"""Kill and resume: finished trials are taken over, and those that a dead process left running are queued again.

A trial's weights and result are files, each whole or not at all, written before the study is told. At the start a trial
that a killed process left running is adopted when its result exists; otherwise it is closed as failed and queued again
(once, where the trial itself may have killed the process), to go on from the last state of its training on file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from typing import Final

from optuna.trial import TrialState as OptunaState

from vlmsel_auto.errors import TrialUnavailable, WorkdirError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.records import TrialResult, TrialState
from vlmsel_auto.study.optuna_study import OptunaStudy, StudyEntry
from vlmsel_auto.study.results import Results
from vlmsel_auto.tuning.checkpoints import (
    drop_weights,
    has_weights,
    load_trial,
    read_result,
    result_from_json,
    result_numbers,
    save_result,
    trial_dir,
)
from vlmsel_auto.tuning.paused import has_paused
from vlmsel_auto.tuning.runner import Trial, TrialRunner

_FINISHED: Final = (OptunaState.COMPLETE, OptunaState.PRUNED)
ATTEMPTS = 2  # a trial whose process is killed is begun so often; then it counts as failed
_ASIDE = "renewed"  # folder in the work directory, while weights are made again
_GIVEN_UP = f"the process was killed {ATTEMPTS} times during this trial: its candidate is set aside"


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovery:
    """Makes study and results of a search whole, and queues again what was not finished."""

    study: OptunaStudy
    results: Results
    runner: TrialRunner
    sink: Sink = discard

    def recover(
        self, *, tell: Callable[[TrialResult], None], in_process: bool = True, deadline: float | None = None
    ) -> dict[str, str]:
        """Take over finished trials; close those that a dead process left running, and queue them again once.

        ``tell`` hears of each trial that was taken over. A trial that ran in a worker (``in_process`` is False) did not
        kill the coordinator: it is queued again as often as that happens. Damaged weights are made again until
        ``deadline`` (`time.monotonic`).

        Returns:
            Candidates to set aside, and why: the process died in one of their trials as often as it may.
        """
        entries = self.study.entries()
        queued = {each.retry_of for each in entries}
        for each in entries:
            if each.state is OptunaState.WAITING:
                continue
            result = self._stored(each)
            if result is not None:
                self.results.adopt(result)
                tell(result)
            elif each.state in _FINISHED and each.planned is not None and each.number not in queued:
                self._warn(f"trial {each.number} is made again: its result is lost")
                self.study.queue(each.planned, attempt=each.attempt, retry_of=each.number)
            if each.state is not OptunaState.RUNNING:
                continue
            if result is not None:  # killed between the file and the study
                self.study.close(result)
            elif in_process and each.planned is not None and each.number not in queued and each.attempt >= ATTEMPTS:
                self._give_up(each.number, each.planned)
            else:
                self._retry(each, queued, attempt=each.attempt + in_process)
        self._continue_interrupted()
        for kept in self.results.all():
            self._renew(kept, deadline=deadline)
        return {each.spec.candidate: each.reason for each in self.results.all() if each.reason == _GIVEN_UP}

    def queue_unfinished(self) -> None:
        """Queue again what this process has begun and will not end, also what was taken and no worker has yet.

        What has a result on file is left to `recover`.
        """
        entries, done = self.study.entries(), set(result_numbers(self.runner.workdir))
        queued = {each.retry_of for each in entries}
        for each in entries:
            if each.state is OptunaState.RUNNING and each.number not in done:
                self._retry(each, queued, attempt=each.attempt)

    def queue_again(self, number: int, trial: NextTrial, *, attempt: int) -> None:
        """Queue an unfinished trial again, then close it: a kill in between queues nothing twice."""
        drop_weights(self.runner.workdir, number)
        if has_paused(self.runner.workdir, number):
            trial = replace(trial, continues=number)
        self.study.queue(trial, attempt=attempt, retry_of=number)
        self.study.fail(number)

    def _retry(self, entry: StudyEntry, queued: Container[int | None], *, attempt: int) -> None:
        """Queue a trial again, unless it is ``queued`` or nobody knows what it was."""
        if entry.planned is None or entry.number in queued:
            self.study.fail(entry.number)
        else:
            self.queue_again(entry.number, entry.planned, attempt=attempt)

    def _stored(self, entry: StudyEntry) -> TrialResult | None:
        """The result on file; where that is damaged or missing, the study's own, which is then written again."""
        workdir = self.runner.workdir
        try:
            found = read_result(workdir, entry.number)
        except WorkdirError as error:
            self._warn(f"the result of trial {entry.number} was damaged: {error}")
            found = None
        if found is not None or entry.result is None:
            return found
        kept = result_from_json(entry.result)
        save_result(workdir, kept)
        return kept

    def _give_up(self, number: int, planned: NextTrial) -> None:
        result = self.runner.trial(number, planned).failed(_GIVEN_UP)
        self.results.keep(result)
        self.study.close(result)

    def _continue_interrupted(self) -> None:
        """Queue the trials that the clock of an earlier run cut short, to go on from where they are."""
        queued = {each.planned.continues for each in self.study.entries() if each.planned is not None}
        for each in self.results.interrupted():
            spec = each.spec
            if each.number not in queued and spec.method in self.runner.methods:
                point = self.runner.space(spec.method, spec.candidate).point(spec)
                why = f"goes on with trial {each.number} after epoch {each.epochs_run} of {spec.epochs}"
                self.study.queue(
                    NextTrial(candidate=spec.candidate, method=spec.method, point=point, origin=each.origin,
                              why=why, continues=each.number, fold=spec.fold)
                )  # fmt: skip

    def _renew(self, result: TrialResult, *, deadline: float | None) -> None:
        """Train once more whose weights are damaged, or not those of its result.

        Until that is done the damaged file stays, so that a later run finds it when time or the user ends this one.
        """
        workdir = self.runner.workdir
        if result.state is not TrialState.COMPLETE or not has_weights(workdir, result.number):
            return
        try:
            load_trial(workdir, result)
        except TrialUnavailable as error:
            self._warn(f"the weights of trial {result.number} are made again: {error}")
            self.results.without_weights(result.number)
            made = self._make_again(result, deadline=deadline)
            if made is not None:
                self.results.keep(made)

    def _make_again(self, result: TrialResult, *, deadline: float | None) -> TrialResult | None:
        """Train once more aside, and put the weights where they belong; None: time ended it, or it failed."""
        number, workdir = result.number, self.runner.workdir
        aside = workdir / _ASIDE
        shutil.rmtree(aside, ignore_errors=True)  # a run was killed in here
        try:
            trial = Trial(number=number, spec=result.spec, origin=result.origin, deadline=deadline)
            made = replace(self.runner, workdir=aside).attempt(trial, sink=self.sink).result
            if made.state is TrialState.FAILED:
                drop_weights(workdir, number)
            elif made.state is TrialState.COMPLETE and made.epochs_run >= result.epochs_run:
                for file in trial_dir(aside, number).iterdir():
                    file.replace(trial_dir(workdir, number) / file.name)
                return made
            else:
                self._warn(f"there is no time to make the weights of trial {number} again: a later run does")
            return None
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _warn(self, text: str) -> None:
        self.sink(Notice(text=text, level="warning"))
