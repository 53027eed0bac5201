"""The trials of a search as an Optuna study: plan -> trials, pruning, budget, resume. The only importer of Optuna.

The candidate table is frozen in the study (sorted ids and their hash); a trial suggests an INDEX into it and points of
the unit cube, so that nothing changes when the ranking does. `prior` decides which candidate and method come next; the
hyperparameters of a first trial are the defaults, later ones are near the best point or sampled by TPE.

Kill and resume: a trial's weights and result are files written before Optuna is told, each whole or not at all. At
the start, a trial that a killed process left running is adopted when its result exists; otherwise it is closed as
failed and its parameters are queued again, once. `Budget.trials` counts the finished trials of all runs together,
`Budget.seconds` is wall time of this run.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optuna
import torch
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from vlmsel_auto.cache import Store, digest
from vlmsel_auto.errors import BudgetError, CandidateError, TrialFailed, TrialUnavailable, WorkdirError
from vlmsel_auto.events import RankingReady, Sink, StageFinished, StageStarted, TrialFinished, TrialStarted, discard
from vlmsel_auto.process import locked, terminable, worker, worker_is_gone
from vlmsel_auto.records import Budget, Candidate, Method, Ranking, Task, TrialOrigin, TrialResult, TrialSpec
from vlmsel_auto.trials.checkpoints import (
    drop_weights,
    has_weights,
    load_trial,
    read_result,
    result_from_json,
    result_to_json,
    save_result,
)
from vlmsel_auto.trials.data import splits
from vlmsel_auto.trials.finetune import Report, run_trial
from vlmsel_auto.trials.history import Left, Tried, updated_ranking
from vlmsel_auto.trials.prior import Plan, handicap, make_plan
from vlmsel_auto.trials.probe import Loader
from vlmsel_auto.trials.space import Point, Space, space_for
from vlmsel_auto.trials.steps import Step, next_step

__all__ = ["StudyOutcome", "load_trial", "run_study"]

_METHODS: tuple[Method, ...] = ("probe", "finetune")
_TABLE, _TASK, _RESULT = "candidates", "task", "result"
_ATTEMPTS = 2  # a trial that a killed process left is begun again so often; then it counts as failed
_RUNGS = 4  # a fine-tuning trial reports at each quarter of its epochs, whatever their number
_SLACK = 0.05  # the first trial of a candidate is pruned only when it is worse by more than this: it tells of its rank
_LATE = "the time budget ended"


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyOutcome:
    """What a study found. ``results`` are all finished trials, also those of earlier runs, by number."""

    results: tuple[TrialResult, ...]
    best: TrialResult | None  # by validation; its weights are in the work directory
    plan: Plan
    ranking: Ranking  # after the trials
    seconds: float  # wall time of this run
    stopped_by: Literal["budget", "interrupted", "exhausted"]
    failures: Mapping[str, str]  # candidate -> why its last failed trial failed


class _HandicapPruner(optuna.pruners.BasePruner):
    """Successive halving over quarters of a trial, on values lowered by what the prior does not believe."""

    def __init__(self, plan: Plan, *, table: Sequence[str]) -> None:
        self._plan = plan
        self._table = table
        self._wrapped = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end here. Audits never do: their value is what they are for."""
        origin = trial.user_attrs.get("origin", "planned")
        name = self._table[trial.params["candidate"]]
        shift = (_SLACK if origin == "planned" else 0.0) - handicap(self._plan, name)
        shown = copy.copy(trial)
        shown.intermediate_values = {step: value + shift for step, value in trial.intermediate_values.items()}
        return self._wrapped.prune(study, shown) and origin != "audit"


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


@dataclass(kw_only=True, eq=False)
class _Run:
    """One run of a study; the methods are its steps."""

    task: Task
    table: Mapping[str, Candidate]  # by id, sorted
    plan: Plan
    ranking: Ranking
    budget: Budget
    workdir: Path
    device: torch.device
    load: Loader
    store: Store
    train_shots: int | None
    train_images: int
    images_per_trial: int
    exclusive: bool  # no other process works on this study
    seed: int
    sink: Sink
    study: optuna.Study
    begun: float
    results: dict[int, TrialResult] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return list(self.table)

    @property
    def deadline(self) -> float | None:
        return None if self.budget.seconds is None else self.begun + self.budget.seconds

    # ---- what is known -------------------------------------------------------------------------------------------

    def space(self, method: Method, name: str) -> Space:
        return space_for(
            method,
            candidate=self.table[name],
            train_images=self.train_images,
            images_per_trial=self.images_per_trial,
        )

    def counted(self) -> list[TrialResult]:
        """Trials that used the budget: all but those that the clock cut short."""
        return [each for _, each in sorted(self.results.items()) if not _cut_short(each)]

    def history(self) -> list[Tried]:
        return [
            Tried(
                candidate=each.spec.candidate,
                method=each.spec.method,
                origin=each.origin,
                state=each.state,
                validation=each.validation,
                seconds=each.seconds,
                point=self.space(each.spec.method, each.spec.candidate).point(each.spec),
            )
            for each in self.counted()
            if each.spec.method in self.plan.methods
        ]

    def left(self) -> Left:
        trials = None if self.budget.trials is None else self.budget.trials - len(self.counted())
        seconds = None if self.deadline is None else self.deadline - time.monotonic()
        return Left(trials=trials, seconds=seconds)

    def best(self) -> TrialResult | None:
        """By validation; equal ones by how well their last epochs did, then the earlier."""
        complete = [each for each in self.results.values() if each.state == "complete" and each.validation is not None]
        return max(complete, key=_merit, default=None)

    # ---- resume --------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Take over finished trials; close those that a dead process left running, and queue them again once."""
        trials = self.study.get_trials(deepcopy=False)
        queued = {each.user_attrs.get("retry_of") for each in trials}
        for each in trials:
            if each.state == TrialState.WAITING:
                continue
            result = self._stored(each)
            if result is not None:
                self.results[each.number] = result
                self.sink(TrialFinished(result=result, best=_validation(self.best()), resumed=True))
            if each.state != TrialState.RUNNING or not self._mine(each):
                continue
            if result is not None:  # killed between the file and the study
                self._tell(each.number, result)
            elif each.number in queued:
                self.study.tell(each.number, state=TrialState.FAIL)
            else:
                self._requeue(each, crashed=True)
        self.tidy()

    def _stored(self, trial: FrozenTrial) -> TrialResult | None:
        text = trial.user_attrs.get(_RESULT)
        if isinstance(text, str):
            return result_from_json(text)
        return read_result(self.workdir, trial.number)

    def _mine(self, trial: FrozenTrial) -> bool:
        """Whether a running trial was begun by a process that is gone."""
        return self.exclusive or worker_is_gone(str(trial.user_attrs.get("worker", worker())))

    def _requeue(self, trial: FrozenTrial, *, crashed: bool) -> None:
        """Queue the parameters again, then close the trial: a kill in between queues nothing twice."""
        drop_weights(self.workdir, trial.number)
        attrs = trial.user_attrs
        attempt = int(attrs.get("attempt", 1)) + crashed
        params = dict(attrs.get("params", {})) | trial.params
        if "candidate" in params and attempt > _ATTEMPTS:
            self._give_up(trial, params=params)
            return
        if "candidate" in params:
            kept: dict[str, object] = {key: attrs[key] for key in ("origin", "why", "params") if key in attrs}
            self.study.enqueue_trial(params, user_attrs=kept | {"attempt": attempt, "retry_of": trial.number})
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _give_up(self, trial: FrozenTrial, *, params: Mapping[str, float | str]) -> None:
        method: Method = "finetune" if params["method"] == "finetune" else "probe"
        name = self.names[int(params["candidate"])]
        result = TrialResult(
            number=trial.number,
            spec=self.space(method, name).spec(Point(), candidate=name, seed=self.seed),
            state="failed",
            origin=_origin(trial.user_attrs.get("origin")),
            validation=None,
            test=None,
            curve=(),
            epochs_run=0,
            seconds=0.0,
            reason=f"the process was killed {_ATTEMPTS} times during this trial",
        )
        self._keep(result)
        self._tell(trial.number, result)

    # ---- one trial -----------------------------------------------------------------------------------------------

    def waiting(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def enqueue(self, step: Step) -> None:
        params: dict[str, float | str | int] = {"candidate": self.names.index(step.candidate), "method": step.method}
        if step.point is not None:
            params.update(_coordinates(step.method, step.point))
        self.study.enqueue_trial(params, user_attrs={"origin": step.origin, "why": step.why, "params": params})

    def run_next(self) -> None:
        """Ask for the next trial and run it; whatever happens to it, the study is told."""
        trial = self.study.ask()
        trial.set_user_attr("worker", worker())
        name = self.names[trial.suggest_int("candidate", 0, len(self.table) - 1)]
        method: Method = "finetune" if trial.suggest_categorical("method", _METHODS) == "finetune" else "probe"
        spec = self._suggest(trial, method, name)
        origin = _origin(trial.user_attrs.get("origin"))
        self.sink(TrialStarted(number=trial.number, spec=spec, why=str(trial.user_attrs.get("why", "sampled"))))
        begun = time.monotonic()
        try:
            if name in self.unavailable:
                raise TrialUnavailable(self.unavailable[name])  # noqa: TRY301 - one place makes failed trials
            result = run_trial(
                spec,
                number=trial.number,
                task=self.task,
                candidate=self.table[name],
                load=self.load,
                store=self.store,
                workdir=self.workdir,
                device=self.device,
                origin=origin,
                train_shots=self.train_shots,
                report=_reporter(trial, spec),
                deadline=self.deadline,
                sink=self.sink,
            )
        except KeyboardInterrupt:
            drop_weights(self.workdir, trial.number)
            frozen = next(each for each in self.study.get_trials(deepcopy=False) if each.number == trial.number)
            self._requeue(frozen, crashed=False)
            raise
        except Exception as error:  # noqa: BLE001 - no failure of one trial, foreseen or not, ends the run
            known = isinstance(error, (TrialFailed, CandidateError))
            if isinstance(error, (TrialUnavailable, CandidateError)):
                self.unavailable[name] = str(error)
            result = TrialResult(
                number=trial.number,
                spec=spec,
                state="failed",
                origin=origin,
                validation=None,
                test=None,
                curve=(),
                epochs_run=0,
                seconds=time.monotonic() - begun,
                reason=str(error) if known else f"{type(error).__name__}: {error}",
            )
        self._keep(result)
        trial.set_user_attr(_RESULT, result_to_json(result))
        self._tell(trial.number, result)
        self.tidy()
        self.sink(TrialFinished(result=result, best=_validation(self.best())))

    def _suggest(self, trial: optuna.Trial, method: Method, name: str) -> TrialSpec:
        values = {key: trial.suggest_float(key, 0.0, 1.0) for key in _coordinates(method, Point())}
        point = Point(**{key.partition(".")[2]: value for key, value in values.items()})
        return self.space(method, name).spec(point, candidate=name, seed=self.seed)

    def _keep(self, result: TrialResult) -> None:
        save_result(self.workdir, result)
        self.results[result.number] = result

    def _tell(self, number: int, result: TrialResult) -> None:
        match result.state:
            case "complete":
                self.study.tell(number, result.validation)
            case "pruned":
                self.study.tell(number, state=TrialState.PRUNED)
            case "failed":
                self.study.tell(number, state=TrialState.FAIL)

    def tidy(self) -> None:
        """Keep the weights of the best trial only: the others can no longer become it."""
        best = self.best()
        for number in self.results:
            if (best is None or number != best.number) and has_weights(self.workdir, number):
                drop_weights(self.workdir, number)

    # ---- all trials ----------------------------------------------------------------------------------------------

    def loop(self) -> Literal["budget", "exhausted"]:
        while True:
            left = self.left()
            if (left.trials is not None and left.trials <= 0) or (left.seconds is not None and left.seconds <= 0):
                return "budget"
            if not self.waiting():
                step = next_step(self.plan, self.history(), left=left, unavailable=tuple(self.unavailable))
                if step is None:
                    return "exhausted"
                self.enqueue(step)
            self.run_next()
            self.sink(RankingReady(ranking=self.updated(), updated=True))

    def updated(self) -> Ranking:
        return updated_ranking(self.plan, self.ranking, self.history())


def _coordinates(method: Method, point: Point) -> dict[str, float]:
    """Names of the suggested parameters and their values; each method has its own, for their effects differ."""
    values = {
        f"{method}.learning_rate": point.learning_rate,
        f"{method}.weight_decay": point.weight_decay,
        f"{method}.epochs": point.epochs,
    }
    if method == "finetune":
        values[f"{method}.augmentation"] = point.augmentation
    return values


def _reporter(trial: optuna.Trial, spec: TrialSpec) -> Report:
    """Report fine-tuning at each quarter of its epochs, so that trials of any length meet at the same rungs."""
    told = 0

    def report(epoch: int, validation: float, loss: float) -> bool:
        nonlocal told
        del loss
        rung = epoch * _RUNGS // spec.epochs
        if spec.method != "finetune" or rung <= told or rung >= _RUNGS:
            return False
        told = rung
        trial.report(validation, step=rung)
        return trial.should_prune()

    return report


def _origin(value: object) -> TrialOrigin:
    return "audit" if value == "audit" else "planned" if value == "planned" else "sampled"


def _merit(result: TrialResult) -> tuple[float, float, int]:
    tail = result.curve[-3:]
    return (result.validation or 0.0, sum(tail) / len(tail) if tail else 0.0, -result.number)


def _validation(result: TrialResult | None) -> float | None:
    return None if result is None else result.validation


def _cut_short(result: TrialResult) -> bool:
    return result.state == "pruned" and result.reason.startswith(_LATE)


def _check(*, candidates: Sequence[Candidate], budget: Budget, methods: Sequence[Method]) -> None:
    if not candidates or len({each.id for each in candidates}) != len(candidates):
        raise CandidateError(f"Candidates must be distinct, at least one, but got {[each.id for each in candidates]!r}")
    for name, value in (("seconds", budget.seconds), ("trials", budget.trials)):
        if value is not None and not value > 0:
            raise BudgetError(f"A budget of {name} must be positive, or None for no limit, but got {value!r}")
    if not methods or any(method not in _METHODS for method in methods):
        raise BudgetError(f"methods must be some of {_METHODS!r}, but got {tuple(methods)!r}")


def _open(*, url: str, name: str, task: Task, table: Sequence[str], seed: int) -> optuna.Study:
    """Create or load the study; refuse one of other candidates or another task."""
    study = optuna.create_study(
        storage=RDBStorage(url),
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    mine = {_TABLE: list(table), _TASK: task.digest, "table_sha256": digest(list(table)), "format": 1}
    for key, value in mine.items():
        found = study.user_attrs.get(key)
        if found is None:
            study.set_user_attr(key, value)
        elif found != value:
            what = "images, labels or split" if key == _TASK else "candidates"
            raise WorkdirError(
                f"This work directory belongs to a search with other {what}: choose a new one, "
                f"but got {key}={str(value)[:200]} for a study with {str(found)[:200]}"
            )
    return study


def run_study(
    *,
    task: Task,
    candidates: Sequence[Candidate],
    ranking: Ranking,
    budget: Budget,
    workdir: Path,
    load: Loader,
    methods: Sequence[Method] = _METHODS,
    seed: int = 0,
    sink: Sink = discard,
    device: str | torch.device = "cpu",
    top_k: int | None = None,
    audits: int = 2,
    storage: str | None = None,
    train_shots: int | None = None,
    images_per_trial: int = 2_500,
    store: Store | None = None,
) -> StudyOutcome:
    """Run trials until the budget is spent, nothing promising is left, or someone asks to stop.

    The same call on the same work directory resumes: finished trials are kept and never repeated.

    Args:
        task: the task; its validation split chooses, its test split is only reported.
        candidates: all of them; the study is bound to them.
        ranking: their predicted order.
        budget: ``trials`` counts the finished trials of all runs on this work directory (those that the clock cut short
            are not counted), ``seconds`` is wall time of this call and holds within 5 %, or within one batch of images.
        workdir: holds ``study.db`` and ``trials/``.
        load: gives a freshly loaded model of a candidate, on ``device``.
        methods: ``"probe"``, ``"finetune"`` or both.
        seed: of plan, sampler and trials.
        sink: takes the events of stage "trials".
        device: where the models are.
        top_k: candidates that are not postponed; None lets the ranking's probabilities decide.
        audits: postponed candidates that are tuned on purpose.
        storage: SQLAlchemy URL of a shared study; None is ``workdir/study.db`` for this process alone.
        train_shots: at most so many training images a class; None takes the whole training split.
        images_per_trial: images that a default fine-tuning trial shows to the tower, repeats counted.
        store: where features are kept; None is ``workdir/features``.

    Raises:
        BudgetError: a budget that allows nothing, or no method.
        CandidateError: no candidate, or one twice.
        WorkdirError: another process works there, or it belongs to a search with other candidates or images.
    """
    begun = time.monotonic()
    _check(candidates=candidates, budget=budget, methods=methods)
    table = {each.id: each for each in sorted(candidates, key=lambda each: each.id)}
    plan = make_plan(ranking, candidates=list(table.values()), methods=methods, top_k=top_k, audits=audits, seed=seed)
    url = storage or f"sqlite:///{(workdir / 'study.db').absolute()}"
    lock = nullcontext() if storage else locked(workdir, name="study.lock")
    with lock, _quiet_optuna(), terminable():
        name = f"vlmsel-auto-{task.digest[:16]}" if storage else "vlmsel-auto"
        study = _open(url=url, name=name, task=task, table=list(table), seed=seed)
        study.pruner = _HandicapPruner(plan, table=list(table))
        run = _Run(
            task=task,
            table=table,
            plan=plan,
            ranking=ranking,
            budget=budget,
            workdir=workdir,
            device=torch.device(device),
            load=load,
            store=store or Store(workdir / "features"),
            train_shots=train_shots,
            train_images=len(splits(task, train_shots=train_shots).train),
            images_per_trial=images_per_trial,
            exclusive=storage is None,
            seed=seed,
            sink=sink,
            study=study,
            begun=begun,
        )
        sink(StageStarted(stage="trials", total=budget.trials))
        stopped: Literal["budget", "interrupted", "exhausted"] = "interrupted"
        try:
            run.recover()
            stopped = run.loop()
        except KeyboardInterrupt:
            stopped = "interrupted"
        seconds = time.monotonic() - begun
        sink(StageFinished(stage="trials", seconds=seconds, text=stopped))
        return StudyOutcome(
            results=tuple(result for _, result in sorted(run.results.items())),
            best=run.best(),
            plan=plan,
            ranking=run.updated(),
            seconds=seconds,
            stopped_by=stopped,
            failures={
                each.spec.candidate: each.reason for _, each in sorted(run.results.items()) if each.state == "failed"
            },
        )
