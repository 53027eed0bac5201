"""Exported models: mini-zoo members with their zero-shot heads, alone or as an ensemble."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers.drawings import SHAPES
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.ensembles import write_ensemble
from vlmsel_auto.models.exporting import Classifier, export
from vlmsel_auto.models.familiar import Familiar
from vlmsel_auto.records import AnswerLevel

LEVELS = tuple(
    AnswerLevel(threshold=threshold, coverage=images / 100, images=images, right=right, at_least=at_least)
    for threshold, images, right, at_least in ((0.9, 30, 30, 0.92), (0.6, 70, 66, 0.88), (0.2, 100, 80, 0.73))
)


def export_member(
    name: str, directory: Path, *, classes: Sequence[str] = SHAPES, known: Familiar | None = None
) -> Path:
    model = zoo.load(resolve(name)[0])
    classifier = Classifier(
        head=model.text_features(classes, ["a drawing of a {}."]).numpy(),
        bias=np.linspace(-0.2, 0.3, len(classes), dtype=np.float32),
        scale=model.logit_scale,
        classes=tuple(classes),
        prompts=tuple(classes),
        templates=("a drawing of a {}.",),
        answers=LEVELS,
        familiar=known,
    )
    return export(model, classifier, directory=directory)


def export_pool(members: dict[str, float], directory: Path) -> Path:
    """An ensemble of these members with these weights."""
    for place, name in enumerate(members, start=1):
        export_member(name, directory / f"member-{place}")
    write_ensemble(directory, weights=list(members.values()), answers=LEVELS)
    return directory
