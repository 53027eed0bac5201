"""A finished search becomes a source task of the user's library, so that the next search starts wiser."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.library import library as libraries
from vlmsel_auto.library.records import Build, Cell
from vlmsel_auto.measuring.target import SEARCH
from vlmsel_auto.models.candidates import fingerprint
from vlmsel_auto.ranking.evidence import zeroshot
from vlmsel_auto.ranking.records import TargetSignals
from vlmsel_auto.ranking.signals import (
    SLOW_EVIDENCE,
    evidence_scores,
    image_number,
    label_free_signals,
    predictions,
)
from vlmsel_auto.records import Candidate, IntArray, Task, TrialResult
from vlmsel_auto.tasks.split import few_shot

__all__ = ["RUN", "cells_of_search", "remember_search"]

RUN: Final = "search"  # name of the tuning run in the library
_SHOTS: Final = (1, 2, 4, 8, 16)


def remember_search(
    *,
    task: Task,
    candidates: Sequence[Candidate],
    signals: Sequence[TargetSignals],
    trials: Sequence[TrialResult],
    seed: int,
    path: Path | None = None,
) -> tuple[Path, str]:
    """Add a search to the user's library; see `library.remember`.

    Args:
        task: the target.
        candidates: all of them.
        signals: measurements of those that could be measured.
        trials: all trials.
        seed: of the search.
        path: the library to write; None is the user's own.

    Returns:
        The file written and the name of the source task in it.

    Raises:
        LibraryError: the library is damaged, locked or cannot be written.
    """
    cells = cells_of_search(task=task, candidates=candidates, signals=signals, trials=trials, seed=seed)
    return libraries.remember(cells=cells, run_sources={RUN: "best trial of each candidate in a search"}, path=path)


def cells_of_search(
    *,
    task: Task,
    candidates: Sequence[Candidate],
    signals: Sequence[TargetSignals],
    trials: Sequence[TrialResult],
    seed: int,
) -> list[Cell]:
    """One cell for every measured candidate.

    Zero-shot accuracy is that on the support images, which every candidate has seen, so no model is run again; tuned
    and probed accuracies are those of the best trials on the test split, where there were trials.
    """
    by_id = {one.id: one for one in candidates}
    build = Build(
        source=SEARCH,
        code_version=metadata.version("vlmsel-auto"),
        settings=(("scalar", "margin"), ("seed", str(seed)), ("zero_shot", "support images")),
    )
    tuned, probed = _best(trials, method="finetune"), _best(trials, method="probe")
    labels = task.labels[task.support]
    return [
        Cell(
            candidate=libraries.source_candidate(
                by_id[one.candidate],
                sha256=fingerprint(by_id[one.candidate]),
                blocks=one.blocks,
                widths=tuple(block.shape[0] for block in one.signature),
                embed_dim=one.text_features.shape[1],
            ),
            task=libraries.source_task(task),
            build=build,
            finished=time.time(),
            zero_shot=zeroshot.zeroshot(zeroshot.cosines(one.features, one.text_features), labels),
            probed=probed.get(one.candidate, np.nan),
            tuned={RUN: tuned[one.candidate]} if one.candidate in tuned else {},
            total=float(one.total.mean()) if one.total.size else np.nan,
            signals=label_free_signals(
                one.features, one.text_features, baseline=one.baseline, logit_scale=one.logit_scale
            ),
            evidence=_evidence(one, task=task, seed=seed),
            activity=one.activity,
            signature=one.signature,
            absolute=one.absolute,
            predicted=predictions(one.features, one.text_features),
            predicted_on=image_number(task.support),
        )
        for one in signals
    ]


def _best(trials: Sequence[TrialResult], *, method: str) -> Mapping[str, float]:
    """Test metric of each candidate's best complete trial of this method, chosen by validation."""
    chosen: dict[str, tuple[float, float]] = {}
    for trial in trials:
        if trial.state == "complete" and trial.spec.method == method:
            if trial.validation is None or trial.test is None:
                continue
            pair = (trial.validation, trial.test)
            if trial.spec.candidate not in chosen or pair[0] > chosen[trial.spec.candidate][0]:
                chosen[trial.spec.candidate] = pair
    return {name: test for name, (_, test) in chosen.items()}


def _evidence(one: TargetSignals, *, task: Task, seed: int) -> dict[tuple[int, int, str], float]:
    """Scores at every number of labels a class that the support set has."""
    labels = task.labels[task.support]
    rows: IntArray = np.arange(len(labels))
    found: dict[tuple[int, int, str], float] = {}
    for shots in (one for one in _SHOTS if one <= max(task.shots, 1)):
        chosen = few_shot(labels, rows, shots=shots, seed=seed)
        scores = evidence_scores(
            one.features[chosen], labels[chosen], one.text_features, leave_out=SLOW_EVIDENCE, seed=seed
        )
        found.update({(0, shots, name): value for name, value in scores.items() if np.isfinite(value)})
    return found
