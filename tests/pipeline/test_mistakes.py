"""What the report says of the best model comes from the logits that its fits kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.report_world import make_trial
from helpers.stored_results import saying
from helpers.tuning_world import Memory, digits, spec
from vlmsel_auto.cache import Store
from vlmsel_auto.errors import TaskError
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.pooling import log_probabilities
from vlmsel_auto.pipeline.joined import HeldOut, Joined, Trials
from vlmsel_auto.pipeline.judged_images import find_mistakes

TASK = digits()
CANDIDATES = mini_zoo()
HEARD = []


def logits_of(rows, *, wrong=1):
    """Sure and right, but for the first images."""
    found = 5.0 * np.eye(TASK.n_classes)[TASK.labels[rows]]
    found[:wrong] = np.roll(found[:wrong], 1, axis=1)
    return found.astype(np.float32)


VAL = np.sort(TASK.val)
BEST = Joined(
    trial=replace(make_trial(0, CANDIDATES[0].id, validation=0.9), spec=spec(candidate=CANDIDATES[0].id)), fits=1,
    held_out=HeldOut(rows=VAL, logs=log_probabilities(logits_of(VAL, wrong=2))),
    checkpoint=saying(test=logits_of(np.sort(TASK.test))),
)  # fmt: skip
UNTESTED = replace(TASK, test=TASK.test[:0])


def found(best=BEST, *, task=TASK, images=True):
    HEARD.clear()
    trials = Trials(task=task, candidates=CANDIDATES, workdir=Path(), store=Store(Path()), sink=HEARD.append)
    return find_mistakes(best, trials, images=images)


def test_test_images_are_judged_and_shown():
    mistakes = found()
    rows = np.sort(TASK.test)
    assert (mistakes.split, mistakes.images) == ("test", len(rows))
    (wrong,) = mistakes.surest
    assert (wrong.path, wrong.true) == (TASK.paths[rows[0]], TASK.classes[TASK.labels[rows[0]]])
    assert wrong.thumbnail.startswith("data:image/jpeg;base64,")
    assert all(one.thumbnail for one in mistakes.unsure)


def test_without_a_test_split_held_out_images_are_judged():
    mistakes = found(task=UNTESTED)
    assert (mistakes.split, mistakes.images, len(mistakes.surest)) == ("validation", len(TASK.val), 2)


def test_images_stay_out_where_they_are_not_wanted():
    mistakes = found(images=False)
    assert {one.thumbnail for one in (*mistakes.surest, *mistakes.unsure)} == {""}


@pytest.mark.parametrize(
    ("best", "task"),
    [
        (None, TASK),
        (replace(BEST, checkpoint=replace(BEST.checkpoint, test_logits=None)), TASK),
        (replace(BEST, held_out=None), UNTESTED),
    ],
    ids=["no model", "no logits of test images", "nor of held-out ones"],
)
def test_without_a_model_or_its_logits_there_is_nothing(best, task):
    assert found(best, task=task) is None
    assert HEARD == []


class Gone(Memory):
    """Files that were there when the search began."""

    def read(self, view, indices):
        raise TaskError("the images are gone")


def test_images_that_are_gone_are_told():
    assert found(task=replace(TASK, pixels=Gone(TASK.pixels._pixels))) is None
    assert "the report shows no mistakes of the best model: the images are gone" in HEARD[0].text
