"""The record of a finished search, and what follows from it: predicted against actual rank, time saved.

``report.json`` holds exactly the fields of `SearchReport`; `html_page` and `panel` show it.
"""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, Self

from vlmsel_auto.cache import write_atomically
from vlmsel_auto.errors import InputError
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.planning.objective import ACCURACY, Objective
from vlmsel_auto.recordjson import decode, encode, parse_json
from vlmsel_auto.records import (
    Agreement,
    AnswerLevel,
    BadFile,
    BestModel,
    Budget,
    Candidate,
    EnsembleModel,
    Metric,
    RankedCandidate,
    Ranking,
    StoppedBy,
    Task,
    TrialResult,
)
from vlmsel_auto.reporting.label_issues import LabelIssues
from vlmsel_auto.reporting.mistakes import Mistakes

SCHEMA = 1
START_STAGE: Final = "start"  # of `SearchReport.stage_seconds`: imports and the choice of what to look at
RANKING_STAGE: Final = "images and ranking"
TRIALS_STAGE: Final = "trials"
Split = Literal["validation", "test"]
_PACKAGES: Final = ("vlmsel-auto", "torch", "torchvision", "open_clip_torch", "timm", "lightning", "optuna",
                    "scikit-learn", "scipy", "numpy", "pillow")  # fmt: skip
UNKNOWN: Final = "candidates may not know these images at all: label some, or tune"  # below twice a guess
UNCHECKED: Final = (  # what a search without labels says of its models
    "no label checked this: the model is the one that ranks first, and how often it is right is not known; a few "
    "labelled images of each class would tell"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSummary:
    """What the report says of the task; numbers count images."""

    name: str
    root: str
    domain: str
    metric: Metric
    classes: tuple[str, ...]
    train: int
    val: int
    test: int
    support: int
    shots: int
    digest: str
    unlabelled: int = 0  # images of a task without labels

    @classmethod
    def of(cls, task: Task) -> Self:
        """What is said of this task."""
        return cls(
            name=task.name, root=str(task.root), domain=task.domain, metric=task.metric, classes=task.classes,
            train=len(task.train), val=len(task.val), test=len(task.test), support=len(task.support), shots=task.shots,
            digest=task.digest, unlabelled=0 if task.is_labelled else len(task.paths),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateSummary:
    """What the report says of a candidate."""

    id: str
    params: int | None = None
    flops: float | None = None
    size: int | None = None  # side of the image, pixels
    family: str = "unknown"
    latency: float | None = None  # seconds an image through the visual tower, on this machine; None: not loaded
    memory: int | None = None  # bytes to load it and embed 64 images in float32, as estimated

    @classmethod
    def of(cls, one: Candidate, *, latency: float | None) -> Self:
        """What is said of this candidate."""
        return cls(
            id=one.id, params=one.params, flops=one.flops, size=one.view.size, family=one.family, latency=latency,
            memory=facts_of(one).memory_bytes,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """Another ordering of the same tuned candidates, or the same ordering judged by trials of one method alone."""

    name: str
    agreement: Agreement
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedCandidate:
    """A tuned candidate: where it was predicted and where it came out. Ranks start at 1; equal accuracies share one."""

    candidate: str
    predicted: RankedCandidate | None  # None: it could not be ranked
    predicted_rank: int | None  # among all candidates
    predicted_among_tuned: int | None
    actual_rank: int  # among the tuned
    accuracy: float  # on the split named by ``actual_on``
    trial: TrialResult  # its best trial; of the chosen candidate the chosen one


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """Everything worth knowing of one search; complete enough to render every view again."""

    schema: int = SCHEMA
    created: str  # ISO 8601 with zone
    command: str  # as a user would type it again
    task: TaskSummary
    candidates: tuple[CandidateSummary, ...]
    ranking: Ranking  # as predicted before any trial
    trials: tuple[TrialResult, ...]  # by number, in any state
    best: BestModel | None  # None: no trial succeeded
    ensemble: EnsembleModel | None = None  # several models pooled, where they were exported
    mistakes: Mistakes | None = None  # of the best model; None: there is none, or no unseen image
    label_issues: LabelIssues | None = None  # None: without labels or trials there is nothing to say of them
    agreement: Agreement
    baselines: tuple[Baseline, ...] = ()
    actual_on: Split = "validation"  # split whose metric is the actual accuracy
    budget: Budget
    objective: Objective = ACCURACY  # by which the best model was chosen
    seconds: float  # wall time of the run that wrote the report; earlier runs of the same search took their own
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    stopped_by: StoppedBy = StoppedBy.EXHAUSTED
    bad_files: tuple[BadFile, ...] = ()
    notes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    workdir: str = ""

    @cached_property
    def outcomes(self) -> tuple[TunedCandidate, ...]:
        """Every tuned candidate, best actual accuracy first; of equal ones the better predicted first."""
        best = best_trials(self.trials, chosen=None if self.best is None else self.best.trial)
        actual = actual_accuracies(best, on=self.actual_on)
        ranked = {line.candidate: (place, line) for place, line in enumerate(self.ranking.ranked, start=1)}
        tuned_order = [name for name in self.ranking.order if name in actual]
        lines = []
        for name, accuracy in actual.items():
            place, line = ranked.get(name, (None, None))
            lines.append(
                TunedCandidate(
                    candidate=name,
                    predicted=line,
                    predicted_rank=place,
                    predicted_among_tuned=tuned_order.index(name) + 1 if name in ranked else None,
                    actual_rank=1 + sum(other > accuracy for other in actual.values()),
                    accuracy=accuracy,
                    trial=best[name],
                )
            )
        unranked = len(self.ranking.ranked) + 1
        return tuple(sorted(lines, key=lambda item: (-item.accuracy, item.predicted_rank or unranked, item.candidate)))

    @cached_property
    def answering(self) -> dict[str, tuple[AnswerLevel, ...]]:
        """Answers of best model and ensemble, where held-out images tell of them."""
        named = {"best model": self.best, "ensemble": self.ensemble}
        return {name: one.answers for name, one in named.items() if one is not None and one.answers}

    @cached_property
    def unfinished(self) -> int:
        """How many candidates have no finished trial."""
        tuned = {trial.spec.candidate for trial in self.trials if trial.state == "complete"}
        return sum(item.id not in tuned for item in self.candidates)

    @cached_property
    def before_trials(self) -> float:
        """Seconds before the first trial: what start, images and ranking took in this run."""
        return self.stage_seconds.get(START_STAGE, 0.0) + self.stage_seconds.get(RANKING_STAGE, 0.0)

    @cached_property
    def budget_end(self) -> float | None:
        """Seconds at which the time budget ended, where trials follow `before_trials` one after the other.

        Trials of earlier runs of the search come before it. None: there was no time budget.
        """
        if self.budget.seconds is None:
            return None
        now = self.stage_seconds.get(TRIALS_STAGE, 0.0)
        return max(0.0, sum(trial.seconds for trial in self.trials) - now) + self.budget.seconds

    @cached_property
    def saved_seconds(self) -> float | None:
        """Estimated time that tuning the untouched candidates as well would have taken; None where nothing was tuned.

        The estimate: each untouched candidate at the median, over tuned candidates, of the time all their trials took.
        """
        spent: dict[str, float] = {}
        for trial in self.trials:
            spent[trial.spec.candidate] = spent.get(trial.spec.candidate, 0.0) + trial.seconds
        tuned = best_trials(self.trials)
        if not tuned:
            return None
        typical = statistics.median(spent[name] for name in tuned)
        return typical * sum(item.id not in spent for item in self.candidates)


def best_trials(trials: Sequence[TrialResult], *, chosen: int | None = None) -> dict[str, TrialResult]:
    """Best complete trial of each candidate by validation, of equal ones the earliest.

    The trial of number ``chosen`` stands for its candidate whatever the others reached: it is the model that is used.
    """

    def worth(trial: TrialResult) -> tuple[bool, float]:
        return trial.number == chosen, trial.validation or 0.0

    best: dict[str, TrialResult] = {}
    for trial in sorted(trials, key=lambda each: each.number):
        if trial.state == "complete" and trial.validation is not None:
            held = best.setdefault(trial.spec.candidate, trial)
            if worth(trial) > worth(held):
                best[trial.spec.candidate] = trial
    return best


def actual_accuracies(best: Mapping[str, TrialResult], *, on: Split) -> dict[str, float]:
    """Accuracy of each tuned candidate's best trial on a split; a candidate without that number is left out."""
    values = {name: trial.test if on == "test" else trial.validation for name, trial in best.items()}
    return {name: value for name, value in values.items() if value is not None}


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def to_json(report: SearchReport) -> bytes:
    """The record as the bytes of ``report.json``."""
    text = json.dumps(encode(report), indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode(errors="replace")  # folder names need not be UTF-8


def save_json(report: SearchReport, directory: Path) -> Path:
    """Write ``report.json`` into ``directory`` in one step and return its path."""
    path = directory / "report.json"
    write_atomically(path, to_json(report))
    return path


def find(path: Path) -> Path:
    """The ``report.json`` of a report folder or of a work directory, or ``path`` itself.

    Raises:
        InputError: there is none.
    """
    places = (path, path / "report.json", path / "report" / "report.json")
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(f"no report.json here; give a report folder or a search's --workdir, but got {str(path)!r}")
    return found


def load(path: Path) -> SearchReport:
    """Read the report that `find` finds.

    Raises:
        InputError: there is none, or it is damaged, foreign or of another schema.
    """
    found = find(path)
    try:
        data = parse_json(found.read_bytes())
    except (OSError, InputError) as error:
        raise InputError(
            f"this report cannot be read ({error}); run the search again, but got {str(found)!r}"
        ) from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise InputError(f"{found}: this version reads reports of schema {SCHEMA}, but got {schema!r}")
    try:
        return decode(SearchReport, data)
    except InputError as error:
        raise InputError(f"{found}: not a whole report: {error}") from error
