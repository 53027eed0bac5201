"""Linear probe: logistic regression on cached features added to the zero-shot classifier, cross-validated.

Where the user gave no validation images, every labelled image is scored by a head that was fitted without it, and the
head that is kept is fitted on all of them: a fifth of few labels decides badly, and misses in the fit. How much of
either classifier counts, and how sure both together are, are two weights of a logarithmic pool, fitted to what the
images that were held out say; both being linear, the pool is one head. A tower without texts has the regression alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from vlmsel_auto.models.loadedmodel import class_logits
from vlmsel_auto.models.pooling import fit_weights, log_probabilities
from vlmsel_auto.records import CLASSES_ALIKE, FloatArray, IntArray, Metric
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import measure, score
from vlmsel_auto.tuning.work import Ending, Features, MethodOutcome, Work

_ITERATIONS: Final = 500
INVERSE_PENALTY: Final = 5.0  # scikit-learn's C on unit-norm features; one chosen out of fold gained nothing
_ABSENT: Final = -30.0  # logit of a class that the fitted images do not have
_START: Final = (1.0, 0.1)  # weights of regression and zero-shot before any image is seen; our own choice


def run(work: Work) -> MethodOutcome:
    """Score a head out of fold, or on the validation images that were given, and fit it on all labelled images."""
    splits, labels, metric = work.splits, work.task.labels, work.task.metric
    classes = work.task.n_classes
    found = work.features()

    def head(rows: IntArray) -> Checkpoint:
        work.deadline.check()
        return fit(found.of(rows).numpy(), labels[rows], classes=classes, metric=metric)

    pairs = [(np.setdiff1d(splits.labelled, fold), fold) for fold in splits.folds] or [(splits.train, splits.val)]
    scored = splits.held_out
    order = np.argsort(np.concatenate([rows for _, rows in pairs]))
    regression = torch.cat([_logits(head(fit_on), found, rows) for fit_on, rows in pairs])[torch.from_numpy(order)]
    text = Checkpoint(
        visual=None, weight=found.text.numpy(), bias=np.zeros(classes, dtype=np.float32), scale=found.scale
    )
    zero_shot = _logits(text, found, scored) if len(found.text) else None
    parts = [regression] if zero_shot is None else [regression, zero_shot]
    logs = [log_probabilities(each.numpy()) for each in parts]
    weights = fit_weights(logs, labels[scored], start=_START[: len(parts)]).tolist()
    held_out = torch.stack([weight * each for weight, each in zip(weights, parts, strict=True)]).sum(dim=0)
    known = torch.from_numpy(labels[scored])
    places = [torch.from_numpy(np.searchsorted(scored, np.sort(rows))) for _, rows in pairs]
    kept = _together([head(splits.labelled), text][: len(parts)], weights=weights)
    of_test = _logits(kept, found, splits.test).numpy()
    test: float | None = None
    if len(splits.test):
        test = score(metric, labels=labels[splits.test], predicted=of_test.argmax(axis=1))
    return MethodOutcome(
        checkpoint=replace(kept, held_out_logits=held_out.numpy(), test_logits=of_test),
        start=None
        if zero_shot is None
        else score(metric, labels=labels[scored], predicted=zero_shot.argmax(dim=1).numpy()),
        validation=measure(metric, logits=held_out, labels=known),
        test=test,
        kept=1,
        curve=(),
        ending=Ending.COMPLETE,
        folds=tuple(measure(metric, logits=held_out[at], labels=known[at]) for at in places) if splits.folds else (),
    )


def _logits(head: Checkpoint, found: Features, rows: IntArray) -> torch.Tensor:
    weight, bias = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
    return class_logits(found.of(rows), head=weight, bias=bias, scale=head.scale)


def _together(heads: list[Checkpoint], *, weights: list[float]) -> Checkpoint:
    """One head whose logits are the weighted sum of those of the heads."""
    pairs = list(zip(weights, heads, strict=True))
    return Checkpoint(
        visual=None,
        weight=np.sum([w * one.scale * one.weight for w, one in pairs], axis=0, dtype=np.float32),
        bias=np.sum([w * one.bias for w, one in pairs], axis=0, dtype=np.float32),
        scale=1.0,
    )


def fit(
    features: FloatArray,
    labels: IntArray,
    *,
    classes: int,
    metric: Metric,
    inverse_penalty: float = INVERSE_PENALTY,
) -> Checkpoint:
    """L2-penalised multinomial logistic regression; classes count alike where the metric weighs them alike.

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
        C=inverse_penalty, max_iter=_ITERATIONS, class_weight="balanced" if metric in CLASSES_ALIKE else None
    ).fit(features, labels)
    rows, offsets = model.coef_, model.intercept_
    if len(present) == 2:  # noqa: PLR2004 - scikit-learn gives one row for two classes
        rows, offsets = np.concatenate([-rows, rows]) / 2, np.concatenate([-offsets, offsets]) / 2
    weight[present], bias[present] = rows, offsets
    return Checkpoint(visual=None, weight=weight, bias=bias, scale=1.0)
