"""What the report says of labels comes from the logits that trials kept and from the decoded images."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.report_world import make_trial
from helpers.stored_results import saying
from helpers.tuning_world import Memory, digits, spec
from vlmsel_auto.cache import Store
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.pipeline.joined import Trials
from vlmsel_auto.pipeline.judged_images import find_label_issues
from vlmsel_auto.tuning.checkpoints import save_weights

CANDIDATES = mini_zoo()
TRUE = digits()
WRONG = int(np.sort(TRUE.test)[3])  # a test image whose label is spoilt
LABELS = TRUE.labels.copy()
LABELS[WRONG] = (LABELS[WRONG] + 1) % TRUE.n_classes
TASK = replace(TRUE, labels=LABELS)
TRIALS = [
    replace(make_trial(number, one.id, validation=0.9), spec=spec(candidate=one.id))
    for number, one in enumerate(CANDIDATES[:2])
]


def kept(workdir, number):
    """A trial that is sure of the true classes."""
    logits = 8.0 * np.eye(TRUE.n_classes, dtype=np.float32)[TRUE.labels]
    save_weights(workdir, number, saying(logits[np.sort(TRUE.val)], logits[np.sort(TRUE.test)]))


def found(workdir, *, task=TASK, trials=TRIALS, images=True, heard=None):
    sink = (lambda event: None) if heard is None else heard.append
    left = Trials(
        task=task, candidates=CANDIDATES, workdir=workdir, store=Store(workdir), sink=sink, results=TRIALS
    )  # fmt: skip
    return find_label_issues(trials, left, images=images)


def test_a_label_that_the_trials_contradict_is_suspected(tmp_path):
    for number in range(2):
        kept(tmp_path, number)
    issues = found(tmp_path)
    assert (issues.models, issues.judged, issues.suspected) == (2, 40, 1)
    assert issues.precision > 0.5
    assert issues.suspects[0].true_probability == pytest.approx(1 - issues.precision)
    (one,) = issues.suspects
    assert (one.path, one.true) == (TASK.paths[WRONG], TASK.classes[LABELS[WRONG]])
    assert one.predicted == TASK.classes[TRUE.labels[WRONG]]
    assert one.thumbnail.startswith("data:image/jpeg;base64,")
    assert found(tmp_path, images=False).suspects[0].thumbnail == ""


def test_a_near_duplicate_under_another_label_is_found(tmp_path):
    for number in range(2):
        kept(tmp_path, number)
    pixels = TRUE.pixels._pixels.copy()
    other = int(np.flatnonzero(TRUE.labels != TRUE.labels[0])[0])
    pixels[other] = np.clip(pixels[0] * 0.9 + 5, 0, 255).astype(np.uint8)
    issues = found(tmp_path, task=replace(TRUE, pixels=Memory(pixels)))
    assert issues.compared == len(TRUE.labels)
    (pair,) = issues.near_duplicates
    assert {pair.first.path, pair.second.path} == {TRUE.paths[0], TRUE.paths[other]}
    assert pair.first.thumbnail
    assert pair.distance < 0.01
    assert found(tmp_path, task=TRUE).near_duplicate_pairs == 0


def test_without_trials_or_their_files_there_is_nothing(tmp_path):
    heard = []
    assert found(tmp_path, trials=[]) is None
    assert found(tmp_path, heard=heard) is None
    assert "the report shows no doubtful labels: Trial 0 has no sound weights" in heard[0].text
