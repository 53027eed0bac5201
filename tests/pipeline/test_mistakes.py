"""What the report says of the best model comes from the logits that its trial kept."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.report_world import make_trial
from helpers.tuning_world import digits, spec
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.pipeline.mistakes import find_mistakes
from vlmsel_auto.tuning.checkpoints import Checkpoint, save_weights

TASK = digits()
CANDIDATES = mini_zoo()
TRIAL = replace(make_trial(0, CANDIDATES[0].id, validation=0.9), spec=spec(candidate=CANDIDATES[0].id))
HEARD = []


def logits_of(rows, *, wrong=1):
    """Sure and right, but for the first images."""
    found = 5.0 * np.eye(TASK.n_classes)[TASK.labels[rows]]
    found[:wrong] = np.roll(found[:wrong], 1, axis=1)
    return found.astype(np.float32)


def kept(workdir, **changes):
    every = np.sort(np.concatenate([TASK.train, TASK.val]))
    checkpoint = Checkpoint(
        visual=None,
        weight=np.zeros((TASK.n_classes, 4), dtype=np.float32),
        bias=np.zeros(TASK.n_classes, dtype=np.float32),
        scale=1.0,
        held_out_logits=logits_of(every if TASK.folds else np.sort(TASK.val), wrong=2),
        test_logits=logits_of(np.sort(TASK.test)),
    )
    save_weights(workdir, 0, replace(checkpoint, **changes))


def found(workdir, *, task=TASK, trial=TRIAL, images=True):
    HEARD.clear()
    return find_mistakes(trial, task=task, candidates=CANDIDATES, workdir=workdir, images=images, sink=HEARD.append)


def test_test_images_are_judged_and_shown(tmp_path):
    kept(tmp_path)
    mistakes = found(tmp_path)
    rows = np.sort(TASK.test)
    assert (mistakes.split, mistakes.images) == ("test", len(rows))
    (wrong,) = mistakes.surest
    assert (wrong.path, wrong.true) == (TASK.paths[rows[0]], TASK.classes[TASK.labels[rows[0]]])
    assert wrong.thumbnail.startswith("data:image/jpeg;base64,")
    assert all(one.thumbnail for one in mistakes.unsure)


def test_without_a_test_split_held_out_images_are_judged(tmp_path):
    kept(tmp_path)
    mistakes = found(tmp_path, task=replace(TASK, test=TASK.test[:0]))
    assert (mistakes.split, mistakes.images, len(mistakes.surest)) == ("validation", len(TASK.val), 2)


def test_images_stay_out_where_they_are_not_wanted(tmp_path):
    kept(tmp_path)
    mistakes = found(tmp_path, images=False)
    assert {one.thumbnail for one in (*mistakes.surest, *mistakes.unsure)} == {""}


@pytest.mark.parametrize("trial", [None, TRIAL])
def test_without_a_trial_or_its_logits_there_is_nothing(tmp_path, trial):
    kept(tmp_path, test_logits=None)
    assert found(tmp_path, trial=trial) is None
    assert HEARD == []


def test_weights_that_are_gone_are_told(tmp_path):
    assert found(tmp_path) is None
    assert "the report shows no mistakes of the best model: Trial 0 has no sound weights" in HEARD[0].text
