"""The trials of a search as an Optuna study: queued, run, reported and closed. The only importer of Optuna.

A study of one process is a journal file in its work directory (a trial costs a few appended lines, where a database
commits some twenty transactions); several machines share a database. The candidate table is frozen in the study (sorted
ids and their hash), and so are the methods: a trial suggests an INDEX of a candidate and points of the unit cube, so
nothing changes when the ranking does.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.errors import WorkdirError
from vlmsel_auto.planning.method import Method
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.planning.space import DEFAULT, Point
from vlmsel_auto.process import worker, worker_is_gone
from vlmsel_auto.records import Task, TrialOrigin, TrialResult, TrialState
from vlmsel_auto.tuning.checkpoints import result_to_json

JOURNAL = "study.journal"
_RESULT = "result"
PREDICTION, OUTCOME, EXPECTED, CANDIDATES = "prediction", "outcome", "expected", "candidates"  # user attributes
_CLOSED = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningTrial:
    """A trial that is this process's to run."""

    number: int
    candidate: str
    method: str
    point: Point
    origin: TrialOrigin
    why: str
    continues: int | None
    fold: int
    attempt: int

    @property
    def planned(self) -> NextTrial:
        """As it was queued."""
        return NextTrial(candidate=self.candidate, method=self.method, point=self.point, origin=self.origin,
                         why=self.why, continues=self.continues, fold=self.fold)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What was believed of a trial when it was queued."""

    rank: int | None  # predicted of its candidate before the first trial, 1 is the best
    p_best: float | None  # probability that its candidate is the best
    forecast: float | None  # metric in [0, 1]
    sd: float | None  # of the forecast


class EntryState(enum.StrEnum):
    """Where a trial stands in the study."""

    WAITING = "waiting"
    RUNNING = "running"
    ABANDONED = "abandoned"  # running, but its process is gone
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyEntry:
    """What the study says of one trial."""

    number: int
    state: EntryState
    planned: NextTrial | None  # None: it never got so far as to have a candidate
    result: str | None  # JSON
    attempt: int  # 1, 2, ...
    retry_of: int | None


@dataclass(kw_only=True, eq=False)
class OptunaStudy:
    """One study. Numbers are Optuna's trial numbers."""

    study: optuna.Study
    names: Sequence[str]  # the candidate table
    methods: Mapping[str, Method]
    exclusive: bool  # no other process works on this study
    _running: dict[int, optuna.Trial] = field(default_factory=dict)

    def entries(self) -> list[StudyEntry]:
        """All trials by number."""
        return [self._entry(each) for each in self.study.get_trials(deepcopy=False)]

    def _entry(self, trial: FrozenTrial) -> StudyEntry:
        attrs = trial.user_attrs
        result, retry = attrs.get(_RESULT), attrs.get("retry_of")
        state = EntryState.FINISHED
        if trial.state == OptunaState.WAITING:
            state = EntryState.WAITING
        elif trial.state == OptunaState.RUNNING:
            gone = self.exclusive or worker_is_gone(str(attrs.get("worker", worker())))
            state = EntryState.ABANDONED if gone else EntryState.RUNNING
        return StudyEntry(
            number=trial.number,
            state=state,
            planned=self._planned(trial),
            result=result if isinstance(result, str) else None,
            attempt=int(attrs.get("attempt", 1)),
            retry_of=retry if isinstance(retry, int) else None,
        )

    def _planned(self, trial: FrozenTrial) -> NextTrial | None:
        params = trial.params
        if "candidate" not in params or params.get("method") not in self.methods:
            return None
        method = self.methods[params["method"]]
        known = all(parameter(method, name) in params for name in method.settings)
        continues = trial.user_attrs.get("continues")
        return NextTrial(
            candidate=self.names[int(params["candidate"])],
            method=method.name,
            point={name: float(params[parameter(method, name)]) for name in method.settings} if known else None,
            origin=_origin(trial.user_attrs.get("origin")),
            why=str(trial.user_attrs.get("why", "sampled")),
            continues=continues if isinstance(continues, int) else None,
            fold=int(trial.user_attrs.get("fold", 0)),
        )

    def waiting(self) -> bool:
        """Whether trials are queued."""
        return bool(self.study.get_trials(deepcopy=False, states=(OptunaState.WAITING,)))

    def queue(
        self,
        trial: NextTrial,
        *,
        attempt: int = 1,
        retry_of: int | None = None,
        prediction: Prediction | None = None,
    ) -> None:
        """Put a trial at the end of the queue; what its point leaves open, the study's sampler will choose."""
        method = self.methods[trial.method]
        params: dict[str, int | float | str] = {"candidate": self.names.index(trial.candidate), "method": method.name}
        if trial.point is not None:
            params.update({parameter(method, name): trial.point.get(name, 0.5) for name in method.settings})
        attrs: dict[str, Json] = {
            "origin": trial.origin.value,
            "why": trial.why,
            "worker": worker(),
            "attempt": attempt,
            "continues": trial.continues,
            "fold": trial.fold,
            "retry_of": retry_of,
            PREDICTION: None if prediction is None else asdict(prediction),
        }
        self.study.add_trial(
            create_trial(
                state=OptunaState.WAITING,
                params=params,
                distributions={name: self._distribution(name) for name in params},
                user_attrs={name: value for name, value in attrs.items() if value is not None},
            )
        )

    def _distribution(self, name: str) -> BaseDistribution:
        if name == "candidate":
            return IntDistribution(0, len(self.names) - 1)
        return CategoricalDistribution(list(self.methods)) if name == "method" else FloatDistribution(0.0, 1.0)

    def take(self) -> RunningTrial:
        """Begin the next trial of the queue, or one that the sampler chooses altogether."""
        trial = self.study.ask()
        if trial.user_attrs.get("worker") != worker():
            trial.set_user_attr("worker", worker())
        index = trial.suggest_int("candidate", 0, len(self.names) - 1)
        method = self.methods[trial.suggest_categorical("method", list(self.methods))]
        point = {name: trial.suggest_float(parameter(method, name), 0.0, 1.0) for name in method.settings}
        self._running[trial.number] = trial
        attrs = trial.user_attrs
        continues = attrs.get("continues")
        return RunningTrial(
            number=trial.number,
            candidate=self.names[index],
            method=method.name,
            point=point or DEFAULT,
            origin=_origin(attrs.get("origin")),
            why=str(attrs.get("why", "sampled")),
            continues=continues if isinstance(continues, int) else None,
            fold=int(attrs.get("fold", 0)),
            attempt=int(attrs.get("attempt", 1)),
        )

    def report(self, number: int, *, rung: int, value: float) -> None:
        """Note what a running trial has reached."""
        self._running[number].report(value, step=rung)

    def close(self, result: TrialResult) -> None:
        """Close a trial with its result; other machines read it from the study."""
        trial = self._running.pop(result.number, None)
        if trial is not None and not self.exclusive:
            trial.set_user_attr(_RESULT, result_to_json(result))
        if trial is not None:
            known = {"validation": result.validation, "cost": result.cost, **result.spec.settings}
            trial.set_user_attr(OUTCOME, {**known, "epochs": result.spec.epochs} if result.spec.epochs else known)
        values = result.validation if result.state is TrialState.COMPLETE else None
        self.study.tell(result.number, values, state=_CLOSED[result.state])

    def expect(self, expected: Mapping[int, float]) -> None:
        """Note what the complete trials are now expected to reach on new images, by number: this is what chooses."""
        self.study.set_user_attr(EXPECTED, {str(number): value for number, value in sorted(expected.items())})

    def fail(self, number: int) -> None:
        """Close a trial that has no result."""
        self._running.pop(number, None)
        self.study.tell(number, state=OptunaState.FAIL)


def parameter(method: Method, setting: str) -> str:
    """Name of a setting in the study; each method has its own, for their effects differ."""
    return f"{method.name}.{setting}"


def _origin(value: object) -> TrialOrigin:
    known = [each.value for each in TrialOrigin]
    return TrialOrigin(value) if value in known else TrialOrigin.SAMPLED


@contextmanager
def _quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def _journal(path: Path) -> BaseStorage:
    """Optuna's journal in a file that this process alone works on, mended after a kill.

    What was written by halves never happened: results are files of their own, from which the study is made whole again.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    text = path.read_bytes() if path.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    return JournalStorage(JournalFileBackend(str(path)))


@contextmanager
def open_study(
    *,
    task: Task,
    names: Sequence[str],
    methods: Sequence[Method],
    workdir: Path,
    storage: str | None,
    seed: int,
    done: Sequence[TrialResult],
) -> Iterator[OptunaStudy]:
    """The study of this search, new or as it was left, with Optuna's log lines silenced.

    Args:
        task: what the study is about.
        names: the candidate table, sorted.
        methods: those that trials may use.
        workdir: holds the journal when there is no ``storage``; the caller holds its lock.
        storage: URL of a database that several machines share.
        seed: of the sampler.
        done: results whose files are in ``workdir``; a journal that was lost is written anew from them.

    Raises:
        WorkdirError: the study is one of other candidates, other methods or another task.
    """
    with _quiet():
        study = optuna.create_study(
            storage=RDBStorage(storage) if storage else _journal(workdir.absolute() / JOURNAL),
            study_name=f"vlmsel-auto-{task.digest[:16]}" if storage else "vlmsel-auto",
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.NopPruner(),  # trials are paused at rungs, and can go on
        )
        _claim(study, task=task, names=names, methods=methods)
        opened = OptunaStudy(
            study=study, names=names, methods={each.name: each for each in methods}, exclusive=storage is None
        )
        if done and opened.exclusive and not study.get_trials(deepcopy=False):
            for number in range(max(each.number for each in done) + 1):  # files are adopted by the number they bear
                study.add_trial(
                    create_trial(state=OptunaState.RUNNING, user_attrs={"worker": worker(), "lost": number})
                )
        yield opened


def _claim(study: optuna.Study, *, task: Task, names: Sequence[str], methods: Sequence[Method]) -> None:
    mine: dict[str, tuple[str, Json]] = {
        CANDIDATES: ("candidates", list(names)),
        "table_sha256": ("candidates", digest(list(names))),
        "methods": ("methods", [each.name for each in methods]),
        "task": ("images, labels or split", task.digest),
        "format": ("format", 2),
    }
    known = study.user_attrs
    for key, (what, value) in mine.items():
        found = known.get(key)
        if found is None:
            study.set_user_attr(key, value)
        elif found != value:
            raise WorkdirError(
                f"This work directory belongs to a search with other {what}: choose a new one, "
                f"but got {key}={str(value)[:200]} for a study with {str(found)[:200]}"
            )
