"""Kill and resume: finished trials are taken over, and those that a dead process left running are queued again.

A trial's weights and result are files, each whole or not at all, written before the study is told. At the start a trial
that a killed process left running is adopted when its result exists; otherwise it is closed as failed and queued again
(once, where the trial itself may have killed the process), to go on from the last state of its training on file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

from vlmsel_auto.errors import TrialUnavailable, WorkdirError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.records import TrialResult, TrialState
from vlmsel_auto.study.optuna_study import EntryState, OptunaStudy, StudyEntry
from vlmsel_auto.study.results import Results
from vlmsel_auto.study.runner import TrialRunner, failed
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
from vlmsel_auto.tuning.work import never

ATTEMPTS = 2  # a trial whose process is killed is begun so often; then it counts as failed
_ASIDE = "renewed"  # folder in the work directory, while weights are made again
_GIVEN_UP = f"the process was killed {ATTEMPTS} times during this trial: its candidate is set aside"


def recover(
    study: OptunaStudy,
    results: Results,
    runner: TrialRunner,
    *,
    tell: Callable[[TrialResult], None],
    in_process: bool = True,
    deadline: float | None = None,
    sink: Sink = discard,
) -> dict[str, str]:
    """Take over finished trials; close those that a dead process left running, and queue them again once.

    ``tell`` hears of each trial that was taken over. A trial that ran in a worker (``in_process`` is False) did not
    kill the coordinator: it is queued again as often as that happens. Damaged weights are made again until
    ``deadline`` (`time.monotonic`).

    Returns:
        Candidates to set aside, and why: the process died in one of their trials as often as it may.
    """
    entries = study.entries()
    queued = {each.retry_of for each in entries}
    for each in entries:
        if each.state is EntryState.WAITING:
            continue
        result = _stored(each, runner=runner, sink=sink)
        if result is not None:
            results.adopt(result)
            tell(result)
        elif each.state is EntryState.FINISHED and each.planned is not None and each.number not in queued:
            sink(Notice(text=f"trial {each.number} is made again: its result is lost", level="warning"))
            study.queue(each.planned, attempt=each.attempt, retry_of=each.number)
        if each.state is not EntryState.RUNNING:
            continue
        if result is not None:  # killed between the file and the study
            study.close(result)
        elif each.planned is None or each.number in queued:
            study.fail(each.number)
        elif in_process and each.attempt + 1 > ATTEMPTS:
            _give_up(each.number, each.planned, study=study, results=results, runner=runner)
        else:
            attempt = each.attempt + in_process
            queue_again(study, runner, number=each.number, trial=each.planned, attempt=attempt)
    _continue_interrupted(study, results, runner)
    for kept in results.all():
        _renew(kept, results=results, runner=runner, deadline=deadline, sink=sink)
    return {each.spec.candidate: each.reason for each in results.all() if each.reason == _GIVEN_UP}


def _continue_interrupted(study: OptunaStudy, results: Results, runner: TrialRunner) -> None:
    """Queue the trials that the clock of an earlier run cut short, to go on from where they are."""
    queued = {each.planned.continues for each in study.entries() if each.planned is not None}
    for each in results.interrupted():
        if each.number not in queued and each.spec.method in runner.methods:
            point = runner.space(each.spec.method, each.spec.candidate).point(each.spec)
            why = f"goes on with trial {each.number} after epoch {each.epochs_run} of {each.spec.epochs}"
            study.queue(
                NextTrial(candidate=each.spec.candidate, method=each.spec.method, point=point, origin=each.origin,
                          why=why, continues=each.number, fold=each.spec.fold)
            )  # fmt: skip


def _renew(result: TrialResult, *, results: Results, runner: TrialRunner, deadline: float | None, sink: Sink) -> None:
    """Train once more whose weights are damaged, or not those of its result.

    Until that is done the damaged file stays, so that a later run finds it when time or the user ends this one.
    """
    if result.state is not TrialState.COMPLETE or not has_weights(runner.workdir, result.number):
        return
    try:
        load_trial(runner.workdir, result)
    except TrialUnavailable as error:
        sink(Notice(text=f"the weights of trial {result.number} are made again: {error}", level="warning"))
        results.without_weights(result.number)
        made = _make_again(result, runner=runner, deadline=deadline, sink=sink)
        if made is not None:
            results.keep(made)


def _make_again(result: TrialResult, *, runner: TrialRunner, deadline: float | None, sink: Sink) -> TrialResult | None:
    """Train once more aside, and put the weights where they belong; None: time ended it, or it failed."""
    number, aside = result.number, runner.workdir / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)  # a run was killed in here
    try:
        made = (
            replace(runner, workdir=aside)
            .attempt(result.spec, number=number, origin=result.origin, report=never, deadline=deadline, sink=sink)
            .result
        )
        if made.state is TrialState.FAILED:
            drop_weights(runner.workdir, number)
        elif made.state is TrialState.COMPLETE and made.epochs_run >= result.epochs_run:
            for file in trial_dir(aside, number).iterdir():
                file.replace(trial_dir(runner.workdir, number) / file.name)
            return made
        else:
            text = f"there is no time to make the weights of trial {number} again: a later run does"
            sink(Notice(text=text, level="warning"))
        return None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _stored(entry: StudyEntry, *, runner: TrialRunner, sink: Sink) -> TrialResult | None:
    """The result on file; where that is damaged or missing, the study's own, which is then written again."""
    try:
        found = read_result(runner.workdir, entry.number)
    except WorkdirError as error:
        sink(Notice(text=f"the result of trial {entry.number} was damaged: {error}", level="warning"))
        found = None
    if found is not None or entry.result is None:
        return found
    kept = result_from_json(entry.result)
    save_result(runner.workdir, kept)
    return kept


def queue_again(study: OptunaStudy, runner: TrialRunner, *, number: int, trial: NextTrial, attempt: int) -> None:
    """Queue an unfinished trial again, then close it: a kill in between queues nothing twice."""
    drop_weights(runner.workdir, number)
    if has_paused(runner.workdir, number):
        trial = replace(trial, continues=number)
    study.queue(trial, attempt=attempt, retry_of=number)
    study.fail(number)


def queue_unfinished(study: OptunaStudy, runner: TrialRunner) -> None:
    """Queue again what this process has begun and will not end, also what was taken and is not with a worker yet.

    What has a result on file is left to `recover`.
    """
    entries, done = study.entries(), set(result_numbers(runner.workdir))
    queued = {each.retry_of for each in entries}
    for each in entries:
        if each.state is not EntryState.RUNNING or each.number in done:
            continue
        if each.planned is None or each.number in queued:
            study.fail(each.number)
        else:
            queue_again(study, runner, number=each.number, trial=each.planned, attempt=each.attempt)


def _give_up(number: int, trial: NextTrial, *, study: OptunaStudy, results: Results, runner: TrialRunner) -> None:
    result = failed(
        runner.spec(trial.method, trial.candidate, trial.point or DEFAULT, fold=trial.fold),
        number=number,
        origin=trial.origin,
        reason=_GIVEN_UP,
    )
    results.keep(result)
    study.close(result)
