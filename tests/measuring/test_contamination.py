"""A candidate that was trained on the labelled images is told from the same one that was not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from helpers.tuning_world import candidate, digits
from vlmsel_auto.cache import Store
from vlmsel_auto.measuring.contamination import memories, suspicions
from vlmsel_auto.models import zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.tuning.data import splits

__all__ = ["candidate"]  # a fixture


def trained_on(candidate: Candidate, task: Task, rows: np.ndarray) -> LoadedModel:
    """The candidate pretrained a little longer, on these images with their captions."""
    model = zoo.load(candidate)
    text = model.text_features(task.prompts, task.templates)
    images = model.normalise(task.pixels.read(candidate.view, rows))
    labels = torch.from_numpy(task.labels[rows])
    optimiser = torch.optim.AdamW(model.visual.requires_grad_(True).parameters(), lr=3e-3)
    for _ in range(60):
        loss = functional.cross_entropy(50 * functional.normalize(model.embed(images), dim=-1) @ text.T, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.visual.requires_grad_(False)
    return model


@pytest.mark.slow
def test_only_a_candidate_that_was_trained_on_the_labelled_images_is_suspected(
    candidate: Candidate, tmp_path: Path
) -> None:
    task = digits()
    task = replace(task, labels=np.random.default_rng(0).permutation(task.labels))  # only memory can know these
    parts = splits(task)
    labelled = np.concatenate([parts.train, parts.val])
    rows = np.concatenate([labelled, parts.test])
    clean, dirty = Store(tmp_path / "clean"), Store(tmp_path / "dirty")
    embed(candidate, task, rows, load=lambda: zoo.load(candidate), store=clean)
    assert abs(memories([candidate], task=task, store=clean)[candidate.id].z) < 2.5
    assert suspicions([candidate], task=task, store=clean) == {}
    remembering = trained_on(candidate, task, labelled)
    embed(candidate, task, rows, load=lambda: remembering, store=dirty)
    found = memories([candidate], task=task, store=dirty)[candidate.id]
    assert found.z > 3
    assert found.labelled > found.test + 0.1
    (text,) = suspicions([candidate], task=task, store=dirty).values()
    assert text.startswith(f"{candidate.id} may have seen the labelled images in its pretraining")
    assert (
        f"{100 * found.labelled:.0f} % of them right, of test images of the same classes {100 * found.test:.0f} %"
        in text
    )


def test_candidates_without_kept_embeddings_cost_nothing(candidate: Candidate, tmp_path: Path) -> None:
    store = Store(tmp_path)
    task = digits()
    assert memories([candidate], task=task, store=store) == {}
    embed(candidate, task, task.train, load=lambda: zoo.load(candidate), store=store)  # not the test images
    assert memories([candidate], task=task, store=store) == {}
