"""Kill and resume: finished trials are taken over, and those that a dead process left running are queued again.

A trial's weights and result are files, each whole or not at all, written before the study is told. At the start a trial
that a killed process left running is adopted when its result exists; otherwise it is closed as failed and queued again,
once, to go on from the last state of its training that is on file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.records import TrialResult
from vlmsel_auto.study.optuna_study import EntryState, OptunaStudy, StudyEntry
from vlmsel_auto.study.results import Results
from vlmsel_auto.study.runner import TrialRunner, failed
from vlmsel_auto.tuning.checkpoints import drop_weights, has_paused, read_result, result_from_json

ATTEMPTS = 2  # a trial whose process is killed is begun so often; then it counts as failed


def recover(study: OptunaStudy, results: Results, runner: TrialRunner, *, tell: Callable[[TrialResult], None]) -> None:
    """Take over finished trials; close those that a dead process left running, and queue them again once.

    ``tell`` hears of each trial that was taken over.
    """
    entries = study.entries()
    queued = {each.retry_of for each in entries}
    for each in entries:
        if each.state is EntryState.WAITING:
            continue
        result = _stored(each, runner=runner)
        if result is not None:
            results.adopt(result)
            tell(result)
        if each.state is not EntryState.ABANDONED:
            continue
        if result is not None:  # killed between the file and the study
            study.close(result)
        elif each.planned is None or each.number in queued:
            study.fail(each.number)
        elif each.attempt + 1 > ATTEMPTS:
            _give_up(each.number, each.planned, study=study, results=results, runner=runner)
        else:
            queue_again(study, runner, number=each.number, trial=each.planned, attempt=each.attempt + 1)


def _stored(entry: StudyEntry, *, runner: TrialRunner) -> TrialResult | None:
    return result_from_json(entry.result) if entry.result is not None else read_result(runner.workdir, entry.number)


def queue_again(study: OptunaStudy, runner: TrialRunner, *, number: int, trial: NextTrial, attempt: int) -> None:
    """Queue an unfinished trial again, then close it: a kill in between queues nothing twice."""
    drop_weights(runner.workdir, number)
    if has_paused(runner.workdir, number):
        trial = replace(trial, continues=number)
    study.queue(trial, attempt=attempt, retry_of=number)
    study.fail(number)


def _give_up(number: int, trial: NextTrial, *, study: OptunaStudy, results: Results, runner: TrialRunner) -> None:
    result = failed(
        runner.spec(trial.method, trial.candidate, trial.point or DEFAULT, fold=trial.fold),
        number=number,
        origin=trial.origin,
        reason=f"the process was killed {ATTEMPTS} times during this trial",
    )
    results.keep(result)
    study.close(result)
