"""The warning of near copies, by embeddings that a search has kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from helpers.tuning_world import Memory, candidate, digits
from vlmsel_auto.cache import Store
from vlmsel_auto.measuring.near_copies import near_copies_warning
from vlmsel_auto.models import zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.records import Candidate, ImageView

__all__ = ["candidate"]  # a fixture


def test_frames_on_both_sides_are_told_and_those_in_one_fold_are_not(candidate: Candidate, tmp_path: Path) -> None:
    task = digits(10)
    rows = np.concatenate([np.arange(100), np.arange(100)])
    pixels = task.pixels.read(ImageView(size=8), rows).astype(np.int64)
    pixels[100:] += np.random.default_rng(0).integers(-2, 3, pixels[100:].shape)
    twice = replace(
        task,
        pixels=Memory(np.clip(pixels, 0, 255).astype(np.uint8)),
        labels=task.labels[rows],
        paths=tuple(f"{k}.png" for k in range(200)),
        train=np.arange(25, 200),
        val=np.arange(25),
        test=np.arange(0),
        digest="twice",
    )
    store = Store(tmp_path)
    assert near_copies_warning([candidate], task=twice, store=store) == ""  # nothing is kept
    embed(candidate, twice, np.arange(200), load=lambda: zoo.load(candidate), store=store)
    apart = replace(twice, folds=tuple(np.arange(k, k + 25) for k in range(0, 200, 25)))
    told = near_copies_warning([candidate], task=apart, store=store)
    assert told.startswith("near copies on both sides of a split: ")
    assert "of 200 validation images look almost the same as images that are learned from, such as " in told
    assert "--groups, a column group in labels.csv, group in task.toml" in told
    given = near_copies_warning([candidate], task=twice, store=store)  # by the given validation images alone
    assert "of 25 validation images" in given
    together = replace(twice, folds=tuple(np.r_[k : k + 25, 100 + k : 125 + k] for k in range(0, 100, 25)))
    assert near_copies_warning([candidate], task=together, store=store) == ""
