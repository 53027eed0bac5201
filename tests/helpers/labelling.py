"""A heap of drawn shapes, and a session on it whose candidates are drawn numbers: no model is loaded."""

import numpy as np

from helpers.drawings import SHAPES, draw_shape
from helpers.rankings import ranking_of
from vlmsel_auto.pipeline.label_session import LabelSession
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.tasks.task import TaskOptions, load_task

SKILLS = {"good": 3.0, "fair": 1.5, "poor": 0.5}  # votes for the right class, in standard deviations of the noise


def write_heap(root, *, count=30, size=48):
    """ROOT/*.png, every shape in turn: the class of an image is its number modulo 3."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    for number in range(count):
        draw_shape(SHAPES[number % 3], rng, size=size).save(root / f"{number:03d}.png")
    return root


def true_class(path):
    """Class of an image of `write_heap`."""
    return SHAPES[int(path.removesuffix(".png")) % 3]


def drawn_session(root, *, workdir, labels=None, purpose="ranking"):
    """A session of three candidates, of which the ranking believes in the poor one."""
    task = load_task(root, TaskOptions(classes=SHAPES, unlabelled=True), workdir=workdir)
    rng = np.random.default_rng(1)
    right = np.eye(3)[[SHAPES.index(true_class(path)) for path in task.paths]]
    measured = [
        Measurement(candidate=name, features=skill * right + rng.normal(size=right.shape), text_features=np.eye(3))
        for name, skill in SKILLS.items()
    ]
    ranking = ranking_of({"poor": 0.6, "fair": 0.3, "good": 0.1}, task=task.name, chances=True)
    return LabelSession(task, ranking=ranking, measured=measured, labels=labels or {}, purpose=purpose)
