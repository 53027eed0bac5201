"""Tasks with planted wrong labels, and what heads say of their images out of fold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.tuning.fresh_targets import far_candidates
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.models.pooling import fit_weights, log_probabilities
from vlmsel_auto.ranking.evidence.knn import knn
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.records import FloatArray, IntArray
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tuning.probe import fit

PLANTED: Final = (("none", 0.0), *((kind, rate) for kind in ("random", "similar") for rate in (0.02, 0.05, 0.1)))
_IMAGES: Final = 400  # of the test split: no member was trained on them
_FOLDS: Final = 8
_TEAM: Final = 3  # candidates whose heads judge together
_SEED: Final = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Labels of which some were spoilt, and log-probabilities of heads that were fitted to the other folds of them."""

    task: str
    team: str  # near or far: the best candidates; weak: the worst of all
    planted: str
    rate: float
    true: IntArray  # (n,)
    given: IntArray  # (n,)
    logs: FloatArray  # (M, n, K)


def cases(folder: Path, *, cache: Path) -> list[Case]:
    """All of one task; what was computed once lies in ``cache``."""
    kept = cache / "doubtful" / f"{folder.name}.npz"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        found = _made(folder, cache=cache)
        np.savez(kept, cases=np.array([vars(one) for one in found], dtype=object))
    return [Case(**one) for one in np.load(kept, allow_pickle=True)["cases"]]


def _made(folder: Path, *, cache: Path) -> list[Case]:
    task, store, everyone = load_task(folder, workdir=cache), Store(cache / "targets"), mini_zoo()
    rows = np.sort(np.random.default_rng(_SEED).permutation(task.test)[:_IMAGES])
    true, classes = task.labels[rows], task.n_classes
    seen = [embed(one, task, rows, load=partial(zoo.load, one), store=store) for one in everyone]
    features = [unit_rows(one.images.astype(np.float64)) for one in seen]
    zero_shot = [one.logit_scale * x @ one.text.T for one, x in zip(seen, features, strict=True)]
    rng = np.random.default_rng(_SEED)
    teams = _teams(folder.name, np.array([knn(x, true) for x in features]))
    alike = np.mean([_likeness(x, true, classes) for x in features], axis=0)
    found = []
    for planted, rate in PLANTED:
        given = _spoilt(true, rate, alike if planted == "similar" else None, classes=classes, rng=rng)
        fold = rng.permutation(len(true)) % _FOLDS
        judges = sorted({judge for team in teams.values() for judge in team})
        logs = {one: _out_of_fold(features[one], zero_shot[one], given, fold, classes=classes) for one in judges}
        found += [
            Case(task=folder.name, team=team, planted=planted, rate=rate, true=true, given=given,
                 logs=np.stack([logs[one] for one in those]))
            for team, those in teams.items()
        ]  # fmt: skip
    return found


def _teams(name: str, accuracy: FloatArray) -> dict[str, list[int]]:
    """Places of the candidates that judge together."""
    far = {one.id for one in far_candidates(name)}
    order: list[int] = np.argsort(-accuracy, kind="stable").tolist()
    strangers = [place for place in order if mini_zoo()[place].id in far]
    near = {} if len(far) == len(order) else {"near": order[:_TEAM]}
    return {**near, "far": strangers[:_TEAM], "weak": order[-_TEAM:]}


def _likeness(features: FloatArray, labels: IntArray, classes: int) -> FloatArray:
    means = np.stack([features[labels == k].mean(axis=0) for k in range(classes)]) - features.mean(axis=0)
    found: FloatArray = means @ means.T
    return found


def _spoilt(
    true: IntArray, rate: float, alike: FloatArray | None, *, classes: int, rng: np.random.Generator
) -> IntArray:
    """Labels of which a share is another class: any, or one of the two most alike."""
    given = true.copy()
    for row in rng.permutation(len(true))[: round(rate * len(true))]:
        others = np.delete(np.arange(classes), true[row])
        if alike is not None:
            others = others[np.argsort(-alike[true[row], others])[:2]]
        given[row] = rng.choice(others)
    return given


def _out_of_fold(
    features: FloatArray, zero_shot: FloatArray, given: IntArray, fold: IntArray, *, classes: int
) -> FloatArray:
    """Log-probabilities of the product's head, as `tuning.probe` makes them."""
    regression = np.empty((len(given), classes))
    for part in range(_FOLDS):
        rest = fold != part
        head = fit(features[rest], given[rest], classes=classes, metric="accuracy")
        regression[~rest] = features[~rest] @ head.weight.T + head.bias
    pair = [log_probabilities(regression), log_probabilities(zero_shot)]
    weights = fit_weights(pair, given, start=(1.0, 0.1))
    return log_probabilities(weights[0] * regression + weights[1] * zero_shot)
