"""The best trial of a study to a model folder that plain open_clip loads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice, Sink, StageFinished, StageStarted
from vlmsel_auto.models import zoo
from vlmsel_auto.models.exporting import Classifier, export
from vlmsel_auto.records import BestModel, Candidate, FinalScore, Task, TrialResult
from vlmsel_auto.study.study import StudyOutcome
from vlmsel_auto.tuning.checkpoints import Checkpoint, load_trial
from vlmsel_auto.tuning.final_score import final_score


def export_best(
    outcome: StudyOutcome, *, task: Task, candidates: Sequence[Candidate], workdir: Path, sink: Sink
) -> BestModel | None:
    """Write the best trial's model to ``workdir/model``; None without a complete trial.

    A model that cannot be written costs a notice: the best trial is returned all the same, without a folder.
    """
    chosen = outcome.best
    if chosen is None or chosen.validation is None:
        return None
    began = time.monotonic()
    sink(StageStarted(stage="report", text="export and report"))
    candidate = next(one for one in candidates if one.id == chosen.spec.candidate)
    directory: Path | None = None
    on_test: FinalScore | None = None
    try:
        kept = load_trial(workdir, chosen.number)
        on_test = None if kept.test_logits is None else final_score(task, kept.test_logits)
        directory = export_trial(chosen, kept, candidate=candidate, task=task, directory=workdir / "model")
    except VlmselError as error:
        sink(Notice(text=f"the best model was not exported: {error}", level="error"))
    sink(StageFinished(stage="report", seconds=time.monotonic() - began))
    return BestModel(
        candidate=candidate.id,
        method=chosen.spec.method,
        validation=chosen.validation,
        test=chosen.test,
        trial=chosen.number,
        model_dir=directory,
        on_test=on_test,
        params=candidate.params,
    )


def export_trial(trial: TrialResult, kept: Checkpoint, *, candidate: Candidate, task: Task, directory: Path) -> Path:
    """Write the model of a trial.

    Raises:
        TrialUnavailable: the candidate cannot be loaded.
        WorkdirError: ``directory`` holds something else, or cannot be written.
    """
    model = zoo.load(candidate)
    if kept.visual is not None:
        model.visual.load_state_dict(dict(kept.visual), strict=True)
    return export(
        model,
        Classifier(
            head=kept.weight,
            bias=kept.bias,
            scale=kept.scale,
            classes=task.classes,
            prompts=task.prompts,
            templates=task.templates,
            about={
                "task": task.name,
                "method": trial.spec.method,
                "metric": task.metric,
                "validation": trial.validation,
                "test": trial.test,
                "trial": trial.number,
                "seed": trial.spec.seed,
            },
        ),
        directory=directory,
    )
