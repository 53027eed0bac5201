"""Linear probe: logistic regression on cached features, cross-validated on all labelled images.

Where the user gave no validation images, every labelled image is scored by a head that was fitted without it, and the
head that is kept is fitted on all of them: a fifth of few labels decides badly, and misses in the fit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from vlmsel_auto.models.loadedmodel import class_logits
from vlmsel_auto.records import FloatArray, IntArray, Metric
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import measure, score
from vlmsel_auto.tuning.features import features_of
from vlmsel_auto.tuning.work import Ending, Outcome, Work

_ITERATIONS: Final = 500
INVERSE_PENALTY: Final = 5.0  # scikit-learn's C on unit-norm features; one chosen out of fold gained nothing
_ABSENT: Final = -30.0  # logit of a class that the fitted images do not have


def run(work: Work) -> Outcome:
    """Score a head out of fold, or on the validation images that were given, and fit it on all labelled images."""
    splits, labels, metric = work.splits, work.task.labels, work.task.metric
    classes = work.task.n_classes
    found = features_of(work)

    def head(rows: IntArray) -> Checkpoint:
        work.deadline.check()
        return fit(found.of(rows).numpy(), labels[rows], classes=classes, metric=metric)

    def logits(kept: Checkpoint, rows: IntArray) -> torch.Tensor:
        weight, bias = torch.from_numpy(kept.weight), torch.from_numpy(kept.bias)
        return class_logits(found.of(rows), head=weight, bias=bias, scale=kept.scale)

    pairs = [(np.setdiff1d(splits.labelled, fold), fold) for fold in splits.folds] or [(splits.train, splits.val)]
    parts = [logits(head(fit_on), scored) for fit_on, scored in pairs]
    of_folds = tuple(
        measure(metric, logits=part, labels=torch.from_numpy(labels[rows]))
        for part, (_, rows) in zip(parts, pairs, strict=True)
    )
    scored = splits.held_out
    held_out = torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate([rows for _, rows in pairs])))]
    validation = measure(metric, logits=held_out, labels=torch.from_numpy(labels[scored]))
    kept = head(splits.labelled)
    of_test = logits(kept, splits.test).numpy()
    test: float | None = None
    if len(splits.test):
        test = score(metric, labels=labels[splits.test], predicted=of_test.argmax(axis=1))
    zero_shot = class_logits(found.of(scored), head=found.text, bias=torch.zeros(classes), scale=found.scale)
    return Outcome(
        checkpoint=replace(kept, held_out_logits=held_out.numpy(), test_logits=of_test),
        start=score(metric, labels=labels[scored], predicted=zero_shot.argmax(dim=1).numpy()),
        validation=validation,
        test=test,
        kept=1,
        curve=(),
        ending=Ending.COMPLETE,
        folds=of_folds if splits.folds else (),
    )


def fit(
    features: FloatArray,
    labels: IntArray,
    *,
    classes: int,
    metric: Metric,
    inverse_penalty: float = INVERSE_PENALTY,
) -> Checkpoint:
    """L2-penalised multinomial logistic regression; classes count alike where the metric is balanced.

    Args:
        features: (n, D) unit-norm.
        labels: (n,) in 0..K-1.
        classes: K; one that no image has gets a logit that never wins.
        metric: of the task.
        inverse_penalty: scikit-learn's C.
    """
    present = np.unique(labels)
    weight = np.zeros((classes, features.shape[1]), dtype=np.float32)
    bias = np.full(classes, _ABSENT, dtype=np.float32)
    if len(present) == 1:
        bias[present] = 0.0
        return Checkpoint(visual=None, weight=weight, bias=bias, scale=1.0)
    model = LogisticRegression(
        C=inverse_penalty, max_iter=_ITERATIONS, class_weight="balanced" if metric == "balanced_accuracy" else None
    ).fit(features, labels)
    rows, offsets = model.coef_, model.intercept_
    if len(present) == 2:  # noqa: PLR2004 - scikit-learn gives one row for two classes
        rows, offsets = np.concatenate([-rows, rows]) / 2, np.concatenate([-offsets, offsets]) / 2
    weight[present], bias[present] = rows, offsets
    return Checkpoint(visual=None, weight=weight, bias=bias, scale=1.0)
