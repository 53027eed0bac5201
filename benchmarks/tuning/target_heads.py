"""A task folder with what the heads of all mini-zoo members say of it: where several benchmarks of tuning begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.tuning.plain_lines import Tuned, begin
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.models.pooling import fit_weights, log_probabilities
from vlmsel_auto.records import FloatArray, IntArray, Metric, Task
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.probe import INVERSE_PENALTY, fit

PENALTIES = (1.0, INVERSE_PENALTY, 30.0)
PLAIN = f"{INVERSE_PENALTY:g}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """A target with the heads of all candidates, in the order of the mini zoo."""

    task: Task
    features: Sequence[FloatArray]  # (n + t, D) unit-norm: labelled images, then test images
    texts: Sequence[FloatArray]  # (K, D) unit-norm
    scales: Sequence[float]  # of zero-shot logits
    heads: Sequence[Mapping[str, tuple[FloatArray, FloatArray]]]  # logits (n, K) out of fold and (t, K), by name
    order: Sequence[int]  # places of candidates by the log loss of their regression, the lowest first


def look(target: Path, *, scratch: Path, metric: Metric = "accuracy") -> Look:
    """Embed a target by all candidates and fit their heads, for a metric."""
    views = tuple(dict.fromkeys(each.view for each in mini_zoo()))
    task = replace(load_task(target, views=views, workdir=scratch / target.name), metric=metric)
    parts = splits(task)
    rows, everything = parts.labelled, np.concatenate([parts.labelled, parts.test])
    features: list[FloatArray] = []
    texts: list[FloatArray] = []
    scales: list[float] = []
    every_head: list[dict[str, tuple[FloatArray, FloatArray]]] = []
    for candidate in mini_zoo():
        every = embed(
            candidate, task, everything, load=partial(zoo.load, candidate), store=Store(scratch / "embeddings")
        )
        images = every.images.astype(np.float64)
        features.append(images / np.linalg.norm(images, axis=1, keepdims=True))
        texts.append(every.text.astype(np.float64))
        scales.append(min(every.logit_scale, 100.0))
        text = features[-1] @ texts[-1].T * scales[-1]
        heads = {"text": (text[: len(rows)], text[len(rows) :])}
        heads |= {f"{penalty:g}": _head(task, features[-1], penalty=penalty) for penalty in PENALTIES}
        heads["with text"] = with_text(heads[PLAIN], heads["text"], task.labels[rows])
        every_head.append(heads)
    likelihoods = [likelihood(log_probabilities(each[PLAIN][0]), task.labels[rows]) for each in every_head]
    order = np.argsort(-np.array(likelihoods), kind="stable").tolist()
    return Look(task=task, features=features, texts=texts, scales=scales, heads=every_head, order=order)


def with_text(
    regression: tuple[FloatArray, FloatArray], text: tuple[FloatArray, FloatArray], labels: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Both by weights that held-out images give, as `tuning.probe` has it."""
    logs = [log_probabilities(each) for each in (regression[0], text[0])]
    first, second = fit_weights(logs, labels, start=[1.0, 0.1]).tolist()
    return first * regression[0] + second * text[0], first * regression[1] + second * text[1]


def _head(task: Task, features: FloatArray, *, penalty: float) -> tuple[FloatArray, FloatArray]:
    """Logits (n, K) out of fold and (t, K) of the test images by a head on all labelled images."""
    rows = splits(task).labelled
    known, shown = features[: len(rows)], features[len(rows) :]
    held_out = np.zeros((len(rows), task.n_classes))
    for part in task.folds:
        out = np.isin(rows, part)
        held_out[out] = _scores(task, known[~out], task.labels[rows[~out]], known[out], penalty=penalty)
    return held_out, _scores(task, known, task.labels[rows], shown, penalty=penalty)


def _scores(task: Task, features: FloatArray, labels: IntArray, shown: FloatArray, *, penalty: float) -> FloatArray:
    head = fit(features, labels, classes=task.n_classes, metric=task.metric, inverse_penalty=penalty)
    return shown @ head.weight.T.astype(np.float64) + head.bias


def with_fitted_head(task: Task, features: FloatArray, place: int, *, train: IntArray) -> Tuned:
    """The candidate at this place of the mini zoo with a regression on the images ``train``."""
    of_train = features[np.searchsorted(splits(task).labelled, train)]
    head = fit(of_train, task.labels[train], classes=task.n_classes, metric=task.metric, inverse_penalty=10.0)
    return begin(mini_zoo()[place], weight=head.weight.astype(np.float64), bias=head.bias.astype(np.float64))


def likelihood(logs: FloatArray, labels: IntArray) -> float:
    """Log likelihood of log-probabilities (n, K), summed."""
    return float(logs[np.arange(len(labels)), labels].sum())
