"""A candidate on a task of the source pack, as a cell of the library: its profile, and the accuracy that is published.

Where none is published of the candidate, its zero-shot accuracy on the pack's own images stands in: rough, and said.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from importlib.metadata import version
from typing import Final

import numpy as np

from vlmsel_auto.cache import Store
from vlmsel_auto.library import published
from vlmsel_auto.library.records import Build, Cell
from vlmsel_auto.measuring.cells import CELL_VERSION, CellSettings, cell_of, path_points
from vlmsel_auto.measuring.measure import measure
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.ranking.evidence import zeroshot
from vlmsel_auto.ranking.signals import evidence_scores
from vlmsel_auto.records import Task

PACK: Final = "vlmsel-auto library sources"  # the source that a library names for these cells


def measure_source(model: LoadedModel, task: Task, *, store: Store) -> Cell:
    """Profile a loaded candidate on a task of the pack; embeddings and profile are kept in ``store``.

    Evidence of labels is that of the classes that the pack's images have, at their usual number of labels a class.

    Raises:
        VlmselError: the model has no conductance, or an image is gone.
    """
    began = time.perf_counter()
    candidate, images = model.candidate, task.train
    points = path_points(model, CellSettings())
    found = measure(model, task, images=images, profiled=images, store=store, points=points)
    cosine = zeroshot.cosines(found.features, found.text_features)
    names = published.datasets()
    truth = float(published.zero_shot([candidate.id])[0, names.index(task.name)])
    own = math.isnan(truth)
    settings = {
        "cell_version": str(CELL_VERSION),
        "images": str(len(images)),
        "points": str(points),
        "scalar": "margin",
        "baseline": "zeros",
        "zero_shot": "the source images" if own else published.SOURCE,
    }
    cell = cell_of(
        found,
        candidate=candidate,
        task=task,
        images=images,
        unlabelled=images,
        compared=images,
        draws={},
        zero_shot=zeroshot.zeroshot(cosine, task.labels[images]) if own else truth,
        build=Build(source=PACK, code_version=version("vlmsel-auto"), settings=tuple(sorted(settings.items()))),
    )
    present, labels = np.unique(task.labels[images], return_inverse=True)
    few = found.embedded(labels.astype(np.int64))
    evidence = {} if few is None else evidence_scores(replace(few, texts=few.texts[present]))
    shots = max(1, int(np.median(np.bincount(labels))))
    return replace(
        cell,
        evidence={(0, shots, name): value for name, value in evidence.items() if math.isfinite(value)},
        seconds=time.perf_counter() - began,
    )
