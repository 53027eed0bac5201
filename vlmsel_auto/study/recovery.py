"""Kill and resume: finished trials are taken over, and those that a dead process left running are queued again.

A trial's weights and result are files, each whole or not at all, written before the book is told. At the start a trial
that a killed process left running is adopted when its result exists; otherwise it is closed as failed and queued again,
once, to go on from the last state of its training that is on file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vlmsel_auto.planning.next_trial import Step
from vlmsel_auto.planning.space import Point
from vlmsel_auto.records import TrialResult
from vlmsel_auto.study.optuna_study import Entry, Ledger
from vlmsel_auto.study.results import Shelf
from vlmsel_auto.study.runner import Workbench, failed
from vlmsel_auto.tuning.checkpoints import drop_weights, has_paused, read_result, result_from_json

__all__ = ["queue_again", "recover"]

_ATTEMPTS = 2  # a trial that a killed process left is begun again so often; then it counts as failed


def recover(ledger: Ledger, shelf: Shelf, bench: Workbench, *, tell: Callable[[TrialResult], None]) -> None:
    """Take over finished trials; close those that a dead process left running, and queue them again once.

    ``tell`` hears of each trial that was taken over.
    """
    entries = ledger.entries()
    queued = {each.retry_of for each in entries}
    for each in entries:
        if each.state == "waiting":
            continue
        result = _stored(each, bench=bench)
        if result is not None:
            shelf.adopt(result)
            tell(result)
        if not each.abandoned:
            continue
        if result is not None:  # killed between the file and the book
            ledger.close(result)
        elif each.step is None or each.number in queued:
            ledger.fail(each.number)
        elif each.attempt + 1 > _ATTEMPTS:
            _give_up(each, each.step, ledger=ledger, shelf=shelf, bench=bench)
        else:
            queue_again(ledger, bench, number=each.number, step=each.step, attempt=each.attempt + 1)


def _stored(entry: Entry, *, bench: Workbench) -> TrialResult | None:
    return result_from_json(entry.result) if entry.result is not None else read_result(bench.workdir, entry.number)


def queue_again(ledger: Ledger, bench: Workbench, *, number: int, step: Step, attempt: int) -> None:
    """Queue an unfinished trial again, then close it: a kill in between queues nothing twice."""
    drop_weights(bench.workdir, number)
    if has_paused(bench.workdir, number):
        step = replace(step, continues=number)
    ledger.queue(step, attempt=attempt, retry_of=number)
    ledger.fail(number)


def _give_up(entry: Entry, step: Step, *, ledger: Ledger, shelf: Shelf, bench: Workbench) -> None:
    result = failed(
        bench.spec(step.method, step.candidate, step.point or Point()),
        number=entry.number,
        origin=step.origin,
        reason=f"the process was killed {_ATTEMPTS} times during this trial",
    )
    shelf.keep(result)
    ledger.close(result)
