"""From what a search did to its report: which split is the truth, how good the prediction was, and against what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from vlmsel_auto.ranking.agreement import agreement
from vlmsel_auto.records import Agreement, Budget, Candidate, Ranking, Task, TrialResult
from vlmsel_auto.reporting.report import (
    PROBES_ONLY,
    Baseline,
    BestSummary,
    SearchReport,
    StoppedBy,
    actual_accuracies,
    best_trials,
    package_versions,
    summarise_candidate,
    summarise_task,
)
from vlmsel_auto.reporting.wording import percent, plural

__all__ = ["judge", "make_report", "truth_split"]


def truth_split(trials: Sequence[TrialResult]) -> Literal["validation", "test"]:
    """Split whose metric is the actual accuracy: test where every tuned candidate has it, else validation.

    Validation chose each candidate's best trial and epoch, so it flatters; test was never looked at.
    """
    best = best_trials(trials).values()
    return "test" if best and all(trial.test is not None for trial in best) else "validation"


def judge(
    scores: Mapping[str, float], trials: Sequence[TrialResult], *, on: Literal["validation", "test"], seed: int = 0
) -> Agreement:
    """Predicted scores (higher is better) against what tuned candidates reached; those without a score are left out."""
    actual = actual_accuracies(trials, on=on)
    names = [name for name in actual if name in scores]
    return agreement(
        np.array([scores[name] for name in names], dtype=np.float64),
        np.array([actual[name] for name in names], dtype=np.float64),
        seed=seed,
    )


def make_report(
    *,
    task: Task,
    candidates: Sequence[Candidate],
    ranking: Ranking,
    trials: Sequence[TrialResult],
    best: TrialResult | None,
    model_dir: Path | None,
    budget: Budget,
    seconds: float,
    stopped_by: StoppedBy,
    stage_seconds: Mapping[str, float],
    command: str,
    settings: Mapping[str, str],
    seed: int,
    workdir: Path,
    average_rank: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> SearchReport:
    """Put the report of a search together.

    Args:
        task: what was searched.
        candidates: all of them, tuned or not.
        ranking: as predicted before the first trial.
        trials: of all runs of this search, in any state.
        best: the trial that was chosen; None when none succeeded.
        model_dir: where its model was exported; None when the export was not reached.
        budget: as given.
        seconds: wall time of this run.
        stopped_by: why the search ended.
        stage_seconds: wall time by stage, in the order of the stages.
        command: as a user would type it again.
        settings: everything else that determines the result, by name.
        seed: of the search.
        workdir: of the search.
        average_rank: mean rank over the library's source tasks by candidate (1 = best), as a baseline; None: unknown.
        notes: what a reader must know beside the ranking's own notes.
    """
    on = truth_split(trials)
    ours = judge({line.candidate: line.score for line in ranking.ranked}, trials, on=on, seed=seed)
    tuned = actual_accuracies(trials, on=on)
    baselines = list(_one_method(ranking, trials, on=on, seed=seed))
    if tuned:
        # equal scores are averaged over all orders of the tied: exactly the expectation of a random order
        random = judge(dict.fromkeys(tuned, 0.0), trials, on=on, seed=seed)
        baselines.append(Baseline(name="random order", agreement=_point(random), note="expected over all orders"))
    known = {name: -rank for name, rank in (average_rank or {}).items() if name in tuned}
    if known:
        missing = len(tuned) - len(known)
        note = f"{missing} tuned candidates are not in the library" if missing else ""
        baselines.append(
            Baseline(
                name="average rank on the source tasks", agreement=judge(known, trials, on=on, seed=seed), note=note
            )
        )
    return SearchReport(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        task=summarise_task(task),
        candidates=tuple(summarise_candidate(one) for one in candidates),
        ranking=ranking,
        trials=tuple(sorted(trials, key=lambda trial: trial.number)),
        best=_best(best, model_dir),
        agreement=ours,
        baselines=tuple(baselines),
        actual_on=on,
        budget=budget,
        seconds=seconds,
        stage_seconds=dict(stage_seconds),
        stopped_by=stopped_by,
        bad_files=task.bad_files,
        notes=(*notes, *_choice(best, trials, images=len(task.val))),
        settings=dict(settings),
        versions=package_versions(),
        seed=seed,
        workdir=str(workdir),
    )


def _choice(best: TrialResult | None, trials: Sequence[TrialResult], *, images: int) -> tuple[str, ...]:
    """Why the chosen trial is not the one with the highest validation, where that is so."""
    complete = [each for each in trials if each.state == "complete" and each.validation is not None]
    top = max(complete, key=lambda each: each.validation or 0.0, default=None)
    if best is None or top is None or (top.validation or 0.0) <= (best.validation or 0.0):
        return ()
    why = (
        f"trial {top.number} ({top.spec.candidate}) had a higher validation than the chosen trial {best.number} "
        f"({percent(top.validation)} against {percent(best.validation)}); on {plural(images, 'image')} that may be "
        f"chance, and the ranking, the trials of kindred candidates and how sure the classifiers are of the right "
        f"classes speak for the chosen one"
    )
    return (why,)


def _one_method(
    ranking: Ranking, trials: Sequence[TrialResult], *, on: Literal["validation", "test"], seed: int
) -> tuple[Baseline, ...]:
    """The prediction judged by linear probes alone, where best trials are of both methods.

    Otherwise a candidate that alone was fine-tuned comes out first for that reason, whatever was predicted.
    """
    methods = {trial.spec.method for trial in best_trials(trials).values()}
    probes = [trial for trial in trials if trial.spec.method == "probe"]
    if len(methods) < 2:  # noqa: PLR2004 - one method: nothing is mixed
        return ()
    scores = {line.candidate: line.score for line in ranking.ranked}
    figures = judge(scores, probes, on=on, seed=seed)
    return (Baseline(name=PROBES_ONLY, agreement=figures, note=f"{figures.n} candidates have one"),)


def _best(trial: TrialResult | None, model_dir: Path | None) -> BestSummary | None:
    if trial is None or trial.validation is None:
        return None
    return BestSummary(
        candidate=trial.spec.candidate,
        method=trial.spec.method,
        validation=trial.validation,
        test=trial.test,
        trial=trial.number,
        model_dir=None if model_dir is None else str(model_dir),
    )


def _point(figures: Agreement) -> Agreement:
    """Without intervals: an expectation over orders has no sampling interval of this kind."""
    return Agreement(
        n=figures.n,
        tau_b=figures.tau_b,
        weighted_tau=figures.weighted_tau,
        ndcg5=figures.ndcg5,
        top1_loss=figures.top1_loss,
        top5_loss=figures.top5_loss,
    )
