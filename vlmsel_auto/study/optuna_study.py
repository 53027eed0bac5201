"""The book of a search's trials: an Optuna study in which they are queued, taken, reported and closed.

With `journal` the only importer of Optuna. A study of one process is a journal file in its work directory (a trial
costs a few appended lines, where a database commits some twenty transactions); several machines share a database. The
candidate table is frozen in the study (sorted ids and their hash): a trial suggests an INDEX into it and points of the
unit cube, so nothing changes when the ranking does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.planning.next_trial import Step
from vlmsel_auto.planning.space import Point
from vlmsel_auto.process import worker, worker_is_gone
from vlmsel_auto.records import Method, Task, TrialOrigin, TrialResult
from vlmsel_auto.study.journal import Journal
from vlmsel_auto.tuning.checkpoints import result_to_json

__all__ = ["JOURNAL", "Entry", "Ledger", "Turn", "open_ledger"]

JOURNAL = "study.journal"
_METHODS: tuple[Method, ...] = ("probe", "finetune")
_RESULT = "result"
_States = Literal["waiting", "running", "finished"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A trial that is this process's to run."""

    number: int
    candidate: str
    method: Method
    point: Point
    origin: TrialOrigin
    why: str
    continues: int | None
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What the book says of one trial."""

    number: int
    state: _States
    step: Step | None  # None: it never got so far as to have a candidate
    result: str | None  # JSON
    attempt: int  # 1, 2, ...
    retry_of: int | None
    abandoned: bool  # running, but its process is gone


@dataclass(kw_only=True, eq=False)
class Ledger:
    """One study. Numbers are Optuna's trial numbers."""

    study: optuna.Study
    names: Sequence[str]  # the candidate table
    exclusive: bool  # no other process works on this study
    _taken: dict[int, optuna.Trial] = field(default_factory=dict)

    def entries(self) -> list[Entry]:
        """All trials by number."""
        return [self._entry(each) for each in self.study.get_trials(deepcopy=False)]

    def _entry(self, trial: FrozenTrial) -> Entry:
        attrs = trial.user_attrs
        running = trial.state == TrialState.RUNNING
        gone = self.exclusive or worker_is_gone(str(attrs.get("worker", worker())))
        result, retry = attrs.get(_RESULT), attrs.get("retry_of")
        return Entry(
            number=trial.number,
            state="running" if running else "waiting" if trial.state == TrialState.WAITING else "finished",
            step=self._step(trial),
            result=result if isinstance(result, str) else None,
            attempt=int(attrs.get("attempt", 1)),
            retry_of=retry if isinstance(retry, int) else None,
            abandoned=running and gone,
        )

    def _step(self, trial: FrozenTrial) -> Step | None:
        params = trial.params
        if "candidate" not in params or "method" not in params:
            return None
        method: Method = "finetune" if params["method"] == "finetune" else "probe"
        known = all(name in params for name in coordinates(method, Point()))
        continues = trial.user_attrs.get("continues")
        return Step(
            candidate=self.names[int(params["candidate"])],
            method=method,
            point=_point(params) if known else None,
            origin=_origin(trial.user_attrs.get("origin")),
            why=str(trial.user_attrs.get("why", "sampled")),
            continues=continues if isinstance(continues, int) else None,
        )

    def waiting(self) -> bool:
        """Whether trials are queued."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def queue(self, step: Step, *, attempt: int = 1, retry_of: int | None = None) -> None:
        """Put a trial at the end of the queue; what its point leaves open, the study's sampler will choose."""
        params: dict[str, int | float | str] = {"candidate": self.names.index(step.candidate), "method": step.method}
        if step.point is not None:
            params.update(coordinates(step.method, step.point))
        attrs: dict[str, Json] = {
            "origin": step.origin,
            "why": step.why,
            "worker": worker(),
            "attempt": attempt,
            "continues": step.continues,
            "retry_of": retry_of,
        }
        self.study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=params,
                distributions={name: self._distribution(name) for name in params},
                user_attrs={name: value for name, value in attrs.items() if value is not None},
            )
        )

    def _distribution(self, name: str) -> BaseDistribution:
        if name == "candidate":
            return IntDistribution(0, len(self.names) - 1)
        return CategoricalDistribution(_METHODS) if name == "method" else FloatDistribution(0.0, 1.0)

    def take(self) -> Turn:
        """Begin the next trial of the queue, or one that the sampler chooses altogether."""
        trial = self.study.ask()
        if trial.user_attrs.get("worker") != worker():
            trial.set_user_attr("worker", worker())
        index = trial.suggest_int("candidate", 0, len(self.names) - 1)
        method: Method = "finetune" if trial.suggest_categorical("method", _METHODS) == "finetune" else "probe"
        values = {name: trial.suggest_float(name, 0.0, 1.0) for name in coordinates(method, Point())}
        self._taken[trial.number] = trial
        attrs = trial.user_attrs
        continues = attrs.get("continues")
        return Turn(
            number=trial.number,
            candidate=self.names[index],
            method=method,
            point=_point(values),
            origin=_origin(attrs.get("origin")),
            why=str(attrs.get("why", "sampled")),
            continues=continues if isinstance(continues, int) else None,
            attempt=int(attrs.get("attempt", 1)),
        )

    def report(self, number: int, *, rung: int, value: float) -> None:
        """Note what a running trial has reached."""
        self._taken[number].report(value, step=rung)

    def close(self, result: TrialResult) -> None:
        """Close a trial with its result; other machines read it from the study."""
        trial = self._taken.pop(result.number, None)
        if trial is not None and not self.exclusive:
            trial.set_user_attr(_RESULT, result_to_json(result))
        if result.state == "complete":
            self.study.tell(result.number, result.validation)
        else:
            self.study.tell(result.number, state=TrialState.PRUNED if result.state == "pruned" else TrialState.FAIL)

    def fail(self, number: int) -> None:
        """Close a trial that has no result."""
        self._taken.pop(number, None)
        self.study.tell(number, state=TrialState.FAIL)


def coordinates(method: Method, point: Point) -> dict[str, float]:
    """Names of the suggested parameters and their values; each method has its own, for their effects differ."""
    values = {
        f"{method}.learning_rate": point.learning_rate,
        f"{method}.weight_decay": point.weight_decay,
        f"{method}.epochs": point.epochs,
    }
    if method == "finetune":
        values[f"{method}.augmentation"] = point.augmentation
    return values


def _point(params: Mapping[str, float | str | int]) -> Point:
    values = {name.partition(".")[2]: float(value) for name, value in params.items() if "." in name}
    return Point(**values)


def _origin(value: object) -> TrialOrigin:
    return "audit" if value == "audit" else "planned" if value == "planned" else "sampled"


@contextmanager
def _quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def open_ledger(
    *, task: Task, names: Sequence[str], workdir: Path, storage: str | None, seed: int, done: Sequence[TrialResult]
) -> Iterator[Ledger]:
    """The study of this search, new or as it was left, with Optuna's log lines silenced.

    Args:
        task: what the study is about.
        names: the candidate table, sorted.
        workdir: holds the journal when there is no ``storage``; the caller holds its lock.
        storage: URL of a database that several machines share.
        seed: of the sampler.
        done: results whose files are in ``workdir``; a journal that was lost is written anew from them.

    Raises:
        WorkdirError: the study is one of other candidates or another task.
    """
    with _quiet():
        study = optuna.create_study(
            storage=RDBStorage(storage) if storage else JournalStorage(Journal(workdir.absolute() / JOURNAL)),
            study_name=f"vlmsel-auto-{task.digest[:16]}" if storage else "vlmsel-auto",
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.NopPruner(),  # trials are paused by `rungs`, and can go on
        )
        _claim(study, task=task, names=names)
        ledger = Ledger(study=study, names=names, exclusive=storage is None)
        if done and ledger.exclusive and not study.get_trials(deepcopy=False):
            for number in range(max(each.number for each in done) + 1):  # files are adopted by the number they bear
                study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={"worker": worker(), "lost": number}))
        yield ledger


def _claim(study: optuna.Study, *, task: Task, names: Sequence[str]) -> None:
    mine: dict[str, Json] = {
        "candidates": list(names),
        "task": task.digest,
        "table_sha256": digest(list(names)),
        "format": 1,
    }
    known = study.user_attrs
    for key, value in mine.items():
        found = known.get(key)
        if found is None:
            study.set_user_attr(key, value)
        elif found != value:
            what = "images, labels or split" if key == "task" else "candidates"
            raise WorkdirError(
                f"This work directory belongs to a search with other {what}: choose a new one, "
                f"but got {key}={str(value)[:200]} for a study with {str(found)[:200]}"
            )
