"""What candidates' kept embeddings say of whether they remember a task's labelled images; no model is run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmsel_auto.cache import Store
from vlmsel_auto.models.embedding import find_embeddings
from vlmsel_auto.ranking.contamination import Memory, memory
from vlmsel_auto.ranking.evidence.zeroshot import cosines
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.work import MAX_SCALE


def memories(candidates: Sequence[Candidate], *, task: Task, store: Store) -> dict[str, Memory]:
    """By candidate: its zero-shot predictions on labelled images beside those on test images.

    Candidates are left out whose embeddings of all these images are not in ``store``; their trials put them there.
    """
    parts = splits(task)
    labelled, test = np.concatenate([parts.train, parts.val]), parts.test
    found: dict[str, Memory] = {}
    for candidate in candidates:
        kept = find_embeddings(candidate, task, np.concatenate([labelled, test]), store=store)
        if kept is None:
            continue
        cosine = cosines(kept.images.astype(np.float64), kept.text.astype(np.float64))
        one = memory(
            cosine[: len(labelled)],
            task.labels[labelled],
            test=cosine[len(labelled) :],
            test_labels=task.labels[test],
            logit_scale=min(kept.logit_scale, MAX_SCALE),
        )
        if one is not None:
            found[candidate.id] = one
    return found


def suspicions(candidates: Sequence[Candidate], *, task: Task, store: Store) -> dict[str, str]:
    """By candidate that seems to remember the labelled images: a sentence for people."""
    return {
        name: f"{name} may have seen the labelled images in its pretraining: untrained it gets "
        f"{100 * found.labelled:.0f} % of them right, of test images of the same classes {100 * found.test:.0f} % "
        f"({found.z:.1f} standard errors). Its validation figures may then promise too much: trust those on test. "
        "Or else the test images are harder"
        for name, found in memories(candidates, task=task, store=store).items()
        if found.shows
    }
