"""A pool of trials to a folder of models that `models.prediction` uses together, with what it reaches."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.models.card import Provenance, ensemble_card
from vlmsel_auto.models.ensembles import write_ensemble
from vlmsel_auto.models.facts import facts_of, known_sum
from vlmsel_auto.models.pooling import log_probabilities, pool
from vlmsel_auto.pipeline.ensemble import Pool
from vlmsel_auto.pipeline.export import NO_WARNINGS, confused, export_joined
from vlmsel_auto.pipeline.joined import Joined
from vlmsel_auto.records import Candidate, EnsembleModel, FloatArray, Task, TrialResult
from vlmsel_auto.tuning.data import measure
from vlmsel_auto.tuning.final_score import final_score

_FOLDER = "ensemble"


def export_ensemble(
    found: Pool | None,
    *,
    joined: Callable[[TrialResult], Joined],
    task: Task,
    candidates: Sequence[Candidate],
    workdir: Path,
    sink: Sink,
    warnings: Mapping[str, str] = NO_WARNINGS,
) -> EnsembleModel | None:
    """Write a pool to ``workdir/ensemble``; one of an earlier call goes also where there is none.

    Args:
        found: by `pool_leaders`.
        joined: the classifier of a member, no temperature being fitted.
        task: the target.
        candidates: all that were usable.
        workdir: of the search.
        sink: told when it could not be written.
        warnings: sentences that the cards of candidates' models say.
    """
    folder = workdir / _FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    if found is None:
        return None
    by_id = {one.id: one for one in candidates}
    names = [one.trial.spec.candidate for one in found.members]
    tests: list[FloatArray] = []
    try:
        for place, one in enumerate(found.members, start=1):
            made = joined(one.trial)
            if made.checkpoint.test_logits is not None:
                tests.append(log_probabilities(made.checkpoint.test_logits))
            export_joined(
                made,
                candidate=by_id[one.trial.spec.candidate],
                task=task,
                directory=folder / f"member-{place}",
                warnings=warnings,
            )
    except VlmselError as error:  # the single model and the report are worth having all the same
        sink(Notice(text=f"no ensemble was exported: {error}", level="warning"))
        return None
    labels = torch.from_numpy(task.labels[found.rows])
    reached = measure(task.metric, logits=torch.from_numpy(found.held_out()), labels=labels)
    tested = pool(tests, found.weights) if len(tests) == len(found.members) else None
    on_test = None if tested is None else final_score(task, tested)
    known = Provenance(
        task=task.name,
        digest=task.digest,
        metric=task.metric,
        validation=reached.metric,
        validation_images=reached.images,
        on_test=on_test,
        confusions=() if on_test is None else confused(tested, rows=np.sort(task.test), task=task),
        warning="; ".join(warnings[name] for name in dict.fromkeys(names) if name in warnings),
    )
    origins = [facts_of(by_id[name]) for name in names]
    text = ensemble_card(name=folder.name, classes=task.classes, origins=origins, weights=found.weights, known=known)
    write_ensemble(folder, weights=found.weights, card=text)
    sizes = [by_id[one.trial.spec.candidate].params for one in found.members]
    return EnsembleModel(
        members=tuple(names),
        trials=tuple(one.trial.number for one in found.members),
        weights=tuple(found.weights),
        validation=reached.metric,
        validation_images=reached.images,
        test=None if on_test is None else on_test.metric,
        model_dir=folder,
        on_test=on_test,
        params=known_sum(sizes),
    )
