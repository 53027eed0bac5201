"""Signals of `conductance_worth.py`: what conductance, image by image and block by block, could tell of accuracy.

Names of what a pass gives are those of `conductance_worth_cells`. Signals are (M, S): candidates, tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
from scipy import special

from benchmarks.conductance.conductance_worth_cells import MOVED, RIVALS, Cells, Pass, each_class, place_in_class
from vlmsel_auto.ranking.evidence.consensus import likeness
from vlmsel_auto.ranking.evidence.zeroshot import CLARITY, cosines
from vlmsel_auto.ranking.label_belief import Belief, believe, prior_weights
from vlmsel_auto.ranking.scaling import standardise, unit_rows
from vlmsel_auto.ranking.signals import TOP2_MARGIN, Embedded, evidence_scores
from vlmsel_auto.records import UNLABELLED, FloatArray, IntArray

Grid = Mapping[str, FloatArray]  # name -> (M, S)
Activity = tuple[FloatArray, ...]  # of each candidate (S, B)


def by_thirds(name: str, values: Sequence[float] | FloatArray) -> dict[str, float]:
    """Means over the first, middle and last third of the blocks."""
    parts = np.array_split(np.asarray(values, dtype=np.float64), 3)
    return {f"{name} {k}": float(part.mean()) for k, part in enumerate(parts) if part.size}


def alike(vectors: FloatArray, labels: IntArray) -> float:
    """How much more alike images (n, D) of one class are than others: difference of mean cosines, in deviations."""
    unit = unit_rows(vectors - vectors.mean(axis=0))
    first, second = np.triu_indices(len(unit), 1)
    cosine, same = (unit @ unit.T)[first, second], labels[first] == labels[second]
    if same.all() or not same.any():
        return np.nan
    return float((cosine[same].mean() - cosine[~same].mean()) / max(float(cosine.std()), 1e-12))


def purity(name: str, total: FloatArray | float, activity: FloatArray) -> dict[str, float]:
    """Log of F(x) - F(x0) over sum |C| (B,), means over images: how little conductances cancel each other."""
    return by_thirds(name, np.log(max(abs(float(np.mean(total))), 1e-9)) - np.log(activity))


def stability(moved: Grid, still: Grid, places: IntArray, blocks: Sequence[slice]) -> dict[str, float]:
    """How little profiles move when images are flipped, shifted or cropped; as a control, how little F does."""
    at = np.tile(places, 3)
    away = np.abs(np.log(moved["activity"]) - np.log(still["activity"][at])).mean(axis=0)
    kept = [
        (unit_rows(moved["signature"][:, b]) * unit_rows(still["signature"][at][:, b])).sum(1).mean() for b in blocks
    ]
    away_total = np.abs(moved["total"] - still["total"][at]).mean() / max(float(still["total"].std()), 1e-9)
    same = (moved["target"] == still["target"][at]).mean()
    return {
        **by_thirds("steady activity", -away),
        **by_thirds("steady signature", kept),
        "steady F": -float(away_total),
        "steady class": float(same),
    }


def grid(cells: Cells, score: Callable[[int, int], dict[str, float]]) -> dict[str, FloatArray]:
    """Scores of every cell by name."""
    shape, found = (cells.members, len(cells.library.tasks)), dict[str, FloatArray]()
    for m, s in np.ndindex(shape):
        for name, value in score(m, s).items():
            found.setdefault(name, np.full(shape, np.nan))[m, s] = value
    return found


class Signals:
    """New signals, by what they are made of."""

    def __init__(self, cells: Cells) -> None:
        self.cells, self.library = cells, cells.library
        self.margins = self.library.signals[:, :, self.library.signal_names.index(TOP2_MARGIN)]

    @cached_property
    def pseudo(self) -> list[IntArray]:
        """Classes of the measured images by the votes of all candidates, as `consensus` weighs them."""
        found = []
        for s, task in enumerate(self.library.tasks):
            named = np.stack([self.cells.get("margin", m, s)["target"] for m in range(self.cells.members)])
            votes = np.stack(
                [np.exp(3.0 * standardise(self.margins[:, s])) @ (named == k) for k in range(task.n_classes)]
            )
            found.append(np.asarray(votes.argmax(axis=0), dtype=np.int64))
        return found

    def agreement(self, part: str, *, shots: int) -> dict[str, FloatArray]:
        """`alike` of "signature", "absolute" or "features", by real classes, or consensus ones without labels."""

        def score(m: int, s: int) -> dict[str, float]:
            real = self.cells.labels[s]
            kept = place_in_class(real) < (shots or len(real))
            rows = self.cells.get("margin", m, s)[part][kept]
            labels = (real if shots else self.pseudo[s])[kept]
            if part == "features":
                return {part: alike(rows, labels)}
            return by_thirds(part, [alike(rows[:, b], labels) for b in self.cells.blocks(m)])

        return grid(self.cells, score)

    def purity(self, kind: Pass, prefix: str = "") -> dict[str, FloatArray]:
        """`purity` of the measured cells."""

        def score(m: int, s: int) -> dict[str, float]:
            cell = self.cells.get(kind, m, s)
            return purity(f"{prefix}purity", cell[f"{prefix}total"], cell[f"{prefix}activity"].mean(axis=0))

        return grid(self.cells, score)

    @cached_property
    def stability(self) -> dict[str, FloatArray]:
        """`stability` of the measured cells."""

        def score(m: int, s: int) -> dict[str, float]:
            moved, still = self.cells.get("moved", m, s), self.cells.get("margin", m, s)
            return stability(moved, still, each_class(self.cells.labels[s], MOVED), self.cells.blocks(m))

        return grid(self.cells, score)

    @cached_property
    def kept(self) -> dict[str, dict[str, FloatArray]]:
        """Without any pass: from the activities of the library and the channels of the research figures."""
        log = [np.log(one) for one in self.library.activity]

        def evenness(m: int, s: int) -> dict[str, float]:
            shares = [block[s] / block[s].sum() for block in self.cells.research.absolute[m]]
            return by_thirds("evenness", [float(special.entr(one).sum() / np.log(len(one))) for one in shares])

        return {
            "cancellation": grid(
                self.cells, lambda m, s: purity("purity", self.library.total[m, s], self.library.activity[m][s])
            ),
            "strength of response": grid(self.cells, lambda m, s: by_thirds("z", log[m][s] - log[m].mean(axis=0))),
            "evenness of channels": grid(self.cells, evenness),
        }

    @cached_property
    def believed(self) -> list[Belief]:
        """Of every task's 48 unlabelled images, without labels; a clear candidate's votes weigh more at first."""
        found = []
        for s in range(len(self.library.tasks)):
            seen = [cosines(self.features(m, s), self.cells.text(m, s)) for m in range(self.cells.members)]
            votes = np.stack([CLARITY * one / max(float(np.std(one - one.mean(axis=0))), 1e-12) for one in seen])
            prior = prior_weights(special.softmax(3.0 * standardise(self.margins[:, s])), likeness(seen))
            found.append(believe(votes, prior=prior, labels=np.full(votes.shape[1], UNLABELLED)))
        return found

    def features(self, m: int, s: int) -> FloatArray:
        """Embeddings (48, D) of unlabelled images."""
        return self.cells.get("votes", m, s)["features"]

    @cached_property
    def taught(self) -> dict[str, FloatArray]:
        """The evidence scores of rankings with labels, by the belief's classes of the unlabelled images."""

        def score(m: int, s: int) -> dict[str, float]:
            classes, places = np.unique(self.believed[s].classes.argmax(axis=1), return_inverse=True)
            if len(classes) == 1:
                return {}
            text = self.cells.text(m, s)
            seen = Embedded(features=self.features(m, s), texts=text[classes], baseline=text[0], labels=places)
            return {f"taught {name}": value for name, value in evidence_scores(seen).items()}

        return grid(self.cells, score)

    def activity(self, kind: Pass, name: str, n: int) -> Activity:
        """Mean activity (S, B) of every candidate over n of the measured images."""

        def mean(m: int, s: int) -> FloatArray:
            rows = self.cells.get(kind, m, s)[name]
            kept = each_class(self.cells.labels[s], n) if len(rows) > RIVALS else slice(n)
            return np.asarray(rows[kept].mean(axis=0), dtype=np.float64)

        tasks = range(len(self.library.tasks))
        return tuple(np.stack([mean(m, s) for s in tasks]) for m in range(self.cells.members))
