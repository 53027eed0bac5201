"""What leading candidates' kept embeddings say of near copies on both sides of a split; no model is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from vlmsel_auto.cache import Store
from vlmsel_auto.models.embedding import find_embeddings
from vlmsel_auto.ranking.near_copies import near_copies
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.tasks.file_names import printable

_CANDIDATES: Final = 3  # whose distances are averaged
_MOST: Final = 2_000  # validation images, and test images, that are compared


def near_copies_warning(candidates: Sequence[Candidate], *, task: Task, store: Store) -> str:
    """A sentence for people where held-out images have near copies among those that are learned from; empty: none.

    Args:
        candidates: the leading ones first; the first three whose embeddings of all images are in ``store`` count.
        task: with labels.
        store: of embeddings.
    """
    known = np.concatenate([task.train, task.val, task.test])
    kept = [find_embeddings(one, task, known, store=store) for one in candidates]
    features = [each.images.astype(np.float64) for each in kept if each is not None][:_CANDIDATES]
    if not features:
        return ""
    sides = np.zeros(len(task.paths), dtype=np.int64)
    for number, fold in enumerate(task.folds, start=1):
        sides[fold] = number
    sides[task.test if task.folds else np.concatenate([task.val, task.test])] = -1
    place = np.zeros(len(task.paths), dtype=np.int64)
    place[known] = np.arange(len(known))
    told, example = [], ""
    for part, images in (("validation", np.concatenate(task.folds or (task.val,))), ("test", task.test)):
        drawn = np.random.default_rng([task.seed, 8]).permutation(images)[:_MOST]
        found = near_copies(features, held_out=place[drawn], sides=sides[known])
        if found.shows:
            told.append(f"{len(found.images):,} of {found.compared:,} {part} images")
            pair = (task.paths[known[each[0]]] for each in (found.images, found.twins))
            example = example or " and ".join(printable(path) for path in pair)
    if not told:
        return ""
    return (
        f"near copies on both sides of a split: {' and '.join(told)} look almost the same as images that are learned "
        f"from, such as {example}. If they are frames of one video or photos of one thing, figures promise more than "
        "new images will show; say what belongs together: --groups, a column group in labels.csv, group in task.toml"
    )
