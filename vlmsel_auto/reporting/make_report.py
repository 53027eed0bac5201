"""From what a search did to its report: which split is the truth, how good the prediction was, and against what."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np

from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.planning.objective import ACCURACY, Objective
from vlmsel_auto.ranking.agreement import TOO_FEW_FOR_TAU, agreement
from vlmsel_auto.records import (
    Agreement,
    BestModel,
    Budget,
    Candidate,
    EnsembleModel,
    Ranking,
    StoppedBy,
    Task,
    TrialResult,
)
from vlmsel_auto.reporting.formatting import percent, plural
from vlmsel_auto.reporting.label_issues import LabelIssues
from vlmsel_auto.reporting.mistakes import Mistakes
from vlmsel_auto.reporting.report import (
    Baseline,
    CandidateSummary,
    SearchReport,
    Split,
    TaskSummary,
    actual_accuracies,
    best_trials,
)
from vlmsel_auto.tuning.methods import label_of

_PACKAGES = ("vlmsel-auto", "torch", "torchvision", "open_clip_torch", "timm", "lightning", "optuna", "scikit-learn",
             "scipy", "numpy", "pillow")  # fmt: skip


def truth_split(best: Mapping[str, TrialResult]) -> Split:
    """Split whose metric is the actual accuracy: test where every tuned candidate has it, else validation.

    Validation chose each candidate's best trial and epoch, so it flatters; test was never screened.
    """
    return "test" if best and all(trial.test is not None for trial in best.values()) else "validation"


def judge(scores: Mapping[str, float], actual: Mapping[str, float], *, seed: int = 0) -> Agreement:
    """Predicted scores (higher is better) against what tuned candidates reached; those without a score are left out."""
    names = [name for name in actual if name in scores]
    return agreement(
        np.array([scores[name] for name in names], dtype=np.float64),
        np.array([actual[name] for name in names], dtype=np.float64),
        seed=seed,
    )


def _task(task: Task) -> TaskSummary:
    return TaskSummary(
        name=task.name,
        root=str(task.root),
        domain=task.domain,
        metric=task.metric,
        classes=task.classes,
        train=len(task.train),
        val=len(task.val),
        test=len(task.test),
        support=len(task.support),
        shots=task.shots,
        digest=task.digest,
        unlabelled=0 if task.is_labelled else len(task.paths),
    )


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def make_report(
    *,
    task: Task,
    candidates: Sequence[Candidate],
    latencies: Mapping[str, float] | None = None,
    ranking: Ranking,
    trials: Sequence[TrialResult],
    best: BestModel | None,
    ensemble: EnsembleModel | None = None,
    mistakes: Mistakes | None = None,
    label_issues: LabelIssues | None = None,
    budget: Budget,
    objective: Objective = ACCURACY,
    seconds: float,
    stopped_by: StoppedBy,
    stage_seconds: Mapping[str, float],
    command: str,
    settings: Mapping[str, str],
    seed: int,
    workdir: Path,
    notes: Sequence[str] = (),
) -> SearchReport:
    """Put the report of a search together; `SearchReport` says what its fields hold.

    ``latencies`` are seconds an image by candidate, as measured; ``trials`` are those of all runs of the search;
    ``stage_seconds`` stands in the order of the stages; ``notes`` is what a reader must know beside the ranking's own.
    """
    tuned = best_trials(trials, chosen=None if best is None else best.trial)
    on = truth_split(tuned)
    actual = actual_accuracies(tuned, on=on)
    scores = {line.candidate: line.score for line in ranking.ranked}
    average = {line.candidate: line.signals["average"] for line in ranking.ranked if "average" in line.signals}
    return SearchReport(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        task=_task(task),
        candidates=tuple(
            CandidateSummary(
                id=one.id,
                params=one.params,
                flops=one.flops,
                size=one.view.size,
                family=one.family,
                latency=(latencies or {}).get(one.id),
                memory=facts_of(one).memory_bytes,
            )
            for one in candidates
        ),
        ranking=ranking,
        trials=tuple(sorted(trials, key=lambda trial: trial.number)),
        best=best,
        ensemble=ensemble,
        mistakes=mistakes,
        label_issues=label_issues,
        agreement=judge(scores, actual, seed=seed),
        baselines=(
            *_one_method(scores, tuned, trials, on=on, seed=seed),
            *_other_orders(average, actual, seed=seed),
        ),
        actual_on=on,
        budget=budget,
        objective=objective,
        seconds=seconds,
        stage_seconds=dict(stage_seconds),
        stopped_by=stopped_by,
        bad_files=(*task.bad_files, *task.pixels.found_bad),
        notes=(*notes, *_choice(best, trials, images=len(task.val), objective=objective)),
        settings=dict(settings),
        versions=package_versions(),
        seed=seed,
        workdir=str(workdir),
    )


def _choice(
    best: BestModel | None, trials: Sequence[TrialResult], *, images: int, objective: Objective
) -> tuple[str, ...]:
    """Why the chosen trial is not the one with the highest validation, where that is so."""
    chosen = next((each for each in trials if best is not None and each.number == best.trial), None)
    others = [each for each in trials if chosen is None or not each.spec.differs_by_part_alone(chosen.spec)]
    tops = best_trials(others).values()
    top = max(tops, key=lambda each: (each.validation or 0.0, -each.number), default=None)
    if best is None or best.validation is None or top is None or (top.validation or 0.0) <= best.validation:
        return ()
    why = (
        f"trial {top.number} ({top.spec.candidate}) had a higher validation than the chosen trial {best.trial} "
        f"({percent(top.validation)} against {percent(best.validation)}); "
    )
    if objective:
        why += f"the objective {objective} weighs that against what its candidate costs"
    else:
        why += (
            f"on {plural(images, 'image')} that may be chance, and the ranking, the trials of kindred candidates and "
            f"how sure the classifiers are of the right classes speak for the chosen one"
        )
    return (why,)


def _one_method(
    scores: Mapping[str, float],
    tuned: Mapping[str, TrialResult],
    trials: Sequence[TrialResult],
    *,
    on: Split,
    seed: int,
) -> list[Baseline]:
    """The prediction judged by the method that most candidates were tuned by, where best trials are of several.

    Otherwise a candidate that alone was fine-tuned comes out first for that reason, whatever was predicted.
    """
    if len({trial.spec.method for trial in tuned.values()}) < 2:  # noqa: PLR2004 - nothing is mixed
        return []
    methods = dict.fromkeys(trial.spec.method for trial in trials)
    best = {method: best_trials([trial for trial in trials if trial.spec.method == method]) for method in methods}
    most = max(best, key=lambda method: len(best[method]))
    actual = actual_accuracies(best[most], on=on)
    figures = judge(scores, actual, seed=seed)
    note = f"{figures.n} candidates have one"
    return [Baseline(name=f"the same, {label_of(most)} alone", agreement=figures, note=note)]


def _other_orders(average: Mapping[str, float], actual: Mapping[str, float], *, seed: int) -> list[Baseline]:
    """Random order, and the library's plain average as far as it knows the tuned candidates."""
    if not actual:
        return []
    # equal scores are averaged over all orders of the tied: exactly the expectation of a random order, which has no
    # sampling interval of this kind
    random = judge(dict.fromkeys(actual, 0.0), actual, seed=seed)
    tau = 0.0 if len(actual) >= TOO_FEW_FOR_TAU and len(set(actual.values())) > 1 else None
    random = replace(random, tau_b=tau, weighted_tau=tau, ndcg5_interval=None, note="")
    orders = [Baseline(name="random order", agreement=random, note="expected over all orders")]
    missing = sum(name not in average for name in actual)
    if missing < len(actual):
        note = f"{missing} tuned candidates are not in the library" if missing else ""
        figures = judge(average, actual, seed=seed)
        orders.append(Baseline(name="average rank on the source tasks", agreement=figures, note=note))
    return orders
