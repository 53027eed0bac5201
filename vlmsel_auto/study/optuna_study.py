"""The trials of a search as an Optuna study: queued, run, reported and closed.

The study is a journal file in the work directory: a trial costs a few appended lines, where a database commits some
twenty transactions, and no server can stop it. `journal` opens it, `storage` copies it elsewhere. The candidate
table is frozen in the study (sorted ids and their hash), and so are the methods: a trial suggests an INDEX of a
candidate and points of the unit cube, so nothing changes when the ranking does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from vlmsel_auto.cache import Json
from vlmsel_auto.planning.method import Method
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.planning.space import DEFAULT, Point
from vlmsel_auto.records import TrialOrigin, TrialResult, TrialState
from vlmsel_auto.tuning.checkpoints import result_to_json

JOURNAL: Final = "study.journal"  # its file in the work directory
STUDY: Final = "vlmsel-auto"  # its name there
_RESULT = "result"
PREDICTION, OUTCOME = "prediction", "outcome"  # user attributes
_CLOSED = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenTrial:
    """A trial that is this process's to run."""

    number: int
    attempt: int  # 1, 2, ...
    planned: NextTrial


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialForecast:
    """What was believed of a trial when it was queued."""

    rank: int | None  # predicted of its candidate before the first trial, 1 is the best
    p_best: float | None  # probability that its candidate is the best
    forecast: float | None  # metric in [0, 1]
    sd: float | None  # of the forecast


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyEntry:
    """What the study says of one trial."""

    number: int
    state: OptunaState  # RUNNING before the first trial of a search is taken: left so by a process that is gone
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
    closed: Callable[[], None] = lambda: None  # called when a trial is closed
    _running: dict[int, optuna.Trial] = field(default_factory=dict)

    def entries(self) -> list[StudyEntry]:
        """All trials by number."""
        return [self._entry(each) for each in self.study.get_trials(deepcopy=False)]

    def _entry(self, trial: FrozenTrial) -> StudyEntry:
        attrs = trial.user_attrs
        result, retry = attrs.get(_RESULT), attrs.get("retry_of")
        return StudyEntry(
            number=trial.number,
            state=trial.state,
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
        point = {name: float(params[parameter(method, name)]) for name in method.settings} if known else None
        return self._next_trial(int(params["candidate"]), method, point, trial.user_attrs)

    def _next_trial(self, index: int, method: Method, point: Point | None, attrs: Mapping[str, Any]) -> NextTrial:
        origin, continues = attrs.get("origin"), attrs.get("continues")
        return NextTrial(
            candidate=self.names[index],
            method=method.name,
            point=point,
            origin=TrialOrigin(origin) if origin in set(TrialOrigin) else TrialOrigin.SAMPLED,
            why=str(attrs.get("why", "sampled")),
            continues=continues if isinstance(continues, int) else None,
            fold=int(attrs.get("fold", 0)),
        )

    def waiting(self) -> list[StudyEntry]:
        """Trials that are queued, the one that will be taken next first."""
        return [self._entry(each) for each in self.study.get_trials(deepcopy=False, states=(OptunaState.WAITING,))]

    def queue(
        self,
        trial: NextTrial,
        *,
        attempt: int = 1,
        retry_of: int | None = None,
        prediction: TrialForecast | None = None,
    ) -> None:
        """Put a trial at the end of the queue; what its point leaves open, the study's sampler will choose."""
        method = self.methods[trial.method]
        params: dict[str, int | float | str] = {"candidate": self.names.index(trial.candidate), "method": method.name}
        if trial.point is not None:
            params.update({parameter(method, name): trial.point.get(name, 0.5) for name in method.settings})
        attrs: dict[str, Json] = {
            "origin": trial.origin.value,
            "why": trial.why,
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

    def take(self) -> TakenTrial:
        """Begin the next trial of the queue, or one that the sampler chooses altogether."""
        trial = self.study.ask()
        index = trial.suggest_int("candidate", 0, len(self.names) - 1)
        method = self.methods[trial.suggest_categorical("method", list(self.methods))]
        point = {name: trial.suggest_float(parameter(method, name), 0.0, 1.0) for name in method.settings}
        self._running[trial.number] = trial
        return TakenTrial(
            number=trial.number,
            attempt=int(trial.user_attrs.get("attempt", 1)),
            planned=self._next_trial(index, method, point or DEFAULT, trial.user_attrs),
        )

    def report(self, number: int, *, rung: int, value: float) -> None:
        """Note what a running trial has reached."""
        self._running[number].report(value, step=rung)

    def close(self, result: TrialResult) -> None:
        """Close a trial with its result: who has only the study, or a damaged file, finds it there."""
        trial = self._running.pop(result.number, None) or optuna.Trial(
            self.study,
            self.study.get_trials(deepcopy=False)[result.number]._trial_id,  # noqa: SLF001 - as `optuna.Trial` wants it
        )
        trial.set_user_attr(_RESULT, result_to_json(result))
        known = {"validation": result.validation, "cost": result.cost, **result.spec.settings}
        trial.set_user_attr(OUTCOME, {**known, "epochs": result.spec.epochs} if result.spec.epochs else known)
        values = result.validation if result.state is TrialState.COMPLETE else None
        self.study.tell(result.number, values, state=_CLOSED[result.state])
        self.closed()

    def fail(self, number: int) -> None:
        """Close a trial that has no result."""
        self._running.pop(number, None)
        self.study.tell(number, state=OptunaState.FAIL)
        self.closed()


def parameter(method: Method, setting: str) -> str:
    """Name of a setting in the study; each method has its own, for their effects differ."""
    return f"{method.name}.{setting}"
