"""QUESTION: What is conductance worth on the published figures of 48 real models?

PAGE: docs/results/conductance.md
RESULT: benchmarks/results/bench-real.json

    python -m benchmarks.ranking.real_models --write benchmarks/results/bench-real.json

Profiles are what the DCD authors printed (`published_conductance.py`), one image a data set, truth is the zero-shot
accuracy that open_clip publishes (`library.published`), on the 18 data sets that both have. Every data set is a target
once, all others are its sources. Two measures, which are different numbers: the DCD authors' NDCG@5, over the models
that stand in both the predicted and the true top five (`dcd_authors.py`), and this project's, relevance max(0, 6 - true
rank). In brackets: minus average_rank, paired 95 % bootstrap over data sets. Losses are percentage points of accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from benchmarks.common import command_line, print_head, print_row, write_json
from benchmarks.ranking.dcd_authors import AUTHORS, GAMMA, authors_ndcg, authors_weights
from benchmarks.ranking.dcd_forms import Form
from benchmarks.ranking.published_conductance import load
from vlmsel_auto.bench.rankings import BASE, average_rank, source_ceiling, weighted_rank
from vlmsel_auto.library import published
from vlmsel_auto.ranking.agreement import mean_interval, ndcg, tau_b, top_k_loss
from vlmsel_auto.ranking.dcd import dcd
from vlmsel_auto.ranking.divergence import Divergence, divergences, softmax_of_known, source_weights
from vlmsel_auto.ranking.fusion import candidate_effect
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.ranking.sources import DEFAULT_WEIGHTING
from vlmsel_auto.records import FloatArray

MEASURES: Final = ("authors_ndcg5", "ndcg5", "tau_b", "top1_loss")
_RANDOM: Final = 200  # random orders
_SHUFFLED: Final = 50  # times that divergences go to wrong sources


@dataclass(frozen=True, kw_only=True, eq=False)
class RealZoo:
    """M models on S data sets."""

    candidate_ids: tuple[str, ...]
    tasks: tuple[str, ...]
    truth: FloatArray  # (M, S) zero-shot accuracies in [0, 1]
    imagenet: FloatArray  # (M,) zero-shot accuracy
    profiles: tuple[FloatArray, ...]  # of each model (S, B): mean |conductance|, F = norm of the embedding
    seed: int = 0  # of random rows
    _divergences: dict[Divergence, FloatArray] = field(default_factory=dict, init=False)  # cache

    def without(self, target: int) -> RealZoo:
        """The same without one data set."""
        kept = np.arange(len(self.tasks)) != target
        return replace(
            self,
            tasks=tuple(np.array(self.tasks)[kept].tolist()),
            truth=self.truth[:, kept],
            profiles=tuple(one[kept] for one in self.profiles),
        )

    def divergence(self, form: Divergence, target: int) -> FloatArray:
        """Divergences (M, S) of a target from every source, NaN from itself."""
        if form not in self._divergences:
            between = [divergences(form, one, one, leave_out_own=True) for one in self.profiles]
            self._divergences[form] = np.stack(between)
        return self._divergences[form][:, target]

    def others(self, target: int) -> FloatArray:
        """Accuracies (M, S - 1) on the sources of a target."""
        return np.delete(self.truth, target, axis=1)

    def chance(self, target: int) -> np.random.Generator:
        """Random numbers of a target."""
        return np.random.default_rng([self.seed, target])


def real_zoo(*, seed: int = 0) -> RealZoo:
    """The published figures: 48 models, the 18 data sets with both profiles and accuracies."""
    found = load()
    names = published.datasets()
    tasks = tuple(name for name in found.tasks if name in names)
    accuracy = published.zero_shot(found.candidate_ids)
    kept = np.array([name in names for name in found.tasks])
    return RealZoo(
        candidate_ids=found.candidate_ids,
        tasks=tasks,
        truth=accuracy[:, [names.index(name) for name in tasks]],
        imagenet=accuracy[:, names.index(published.IMAGENET)],
        profiles=tuple(one[kept] for one in found.mean),
        seed=seed,
    )


Ranking: TypeAlias = Callable[[RealZoo, int], list[FloatArray]]  # of a target: scores (M,), several where by chance


def _random(zoo: RealZoo, target: int) -> list[FloatArray]:
    chance = zoo.chance(target)
    return [chance.random(len(zoo.truth)) for _ in range(_RANDOM)]


def _authors(zoo: RealZoo, target: int, *, gamma: float = GAMMA, share: float = 1.0) -> list[FloatArray]:
    """Source weights: ``share`` of DCD's, the rest alike. The target's own weight is 0."""
    found = zoo.divergence(AUTHORS, target)
    alike = authors_weights(found, gamma=0.0)
    weights = share * authors_weights(found, gamma=gamma) + (1.0 - share) * alike
    return [weighted_rank(zoo.truth, weights)]


def _shuffled(zoo: RealZoo, target: int) -> list[FloatArray]:
    chance = zoo.chance(target)
    found = np.delete(zoo.divergence(AUTHORS, target), target, axis=1)
    drawn = (chance.permuted(found, axis=1) for _ in range(_SHUFFLED))
    return [weighted_rank(zoo.others(target), authors_weights(one)) for one in drawn]


def _ours(
    zoo: RealZoo, target: int, *, form: Divergence = dcd, temperature: float = DEFAULT_WEIGHTING.alone
) -> list[FloatArray]:
    weights = source_weights(zoo.divergence(form, target), temperature=temperature)
    return [candidate_effect(standardise(zoo.truth), weights, shrink=0.0)]


def _hindsight(zoo: RealZoo, target: int, *, sharpness: float) -> list[FloatArray]:
    others = zoo.others(target)
    correlation = np.array([np.corrcoef(zoo.truth[:, target], column)[0, 1] for column in others.T])
    return [weighted_rank(others, softmax_of_known(sharpness * correlation))]


def _nested(zoo: RealZoo, target: int, *, among: Sequence[Ranking]) -> list[FloatArray]:
    """Whichever ranking has the best NDCG@5 on the other data sets, each of them the target of the rest."""
    inner = zoo.without(target)
    found = [
        np.mean([ndcg(score, inner.truth[:, s]) for s in range(len(inner.tasks)) for score in each(inner, s)])
        for each in among
    ]
    return among[int(np.argmax(found))](zoo, target)


_OURS: Final = tuple(
    partial(_ours, form=form, temperature=temperature)
    for form in (dcd, Form(delta="share"))
    for temperature in (0.1, 0.3, 1.0, 3.0)
)
_MIXED: Final = (
    partial(_authors, share=0.0),  # the average rank
    *(partial(_authors, gamma=gamma, share=share) for share in (0.25, 0.5, 0.75, 1.0) for gamma in (1.0, 4.0, 8.0)),
)
RANKINGS: Final[Mapping[str, tuple[Ranking, str]]] = {  # name -> ranking, what it is
    "random": (_random, f"mean over {_RANDOM} random orders"),
    "average_rank": (lambda zoo, t: [average_rank(zoo.others(t))], "mean rank on the other data sets"),
    "imagenet": (lambda zoo, _: [zoo.imagenet], "zero-shot accuracy on ImageNet 1k"),
    "dcd_authors_gamma_1": (partial(_authors, gamma=1.0), "dcd_authors with weights less sharp, gamma 1"),
    "dcd_authors": (_authors, f"DCD as its authors compute it: eta {AUTHORS.eta:g}, gamma {GAMMA:g}"),
    "dcd_authors_gamma_8": (partial(_authors, gamma=8.0), "dcd_authors with sharper weights, gamma 8"),
    "dcd_authors_shuffled": (
        _shuffled,
        f"dcd_authors, each model's divergences given to wrong sources, mean over {_SHUFFLED}",
    ),
    "dcd": (_ours, "our form of DCD on the same vectors, as it is used on the mini zoo"),
    "dcd_nested": (partial(_nested, among=_OURS), "our form, delta and temperature chosen on the other targets"),
    "mixed_nested": (
        partial(_nested, among=_MIXED),
        "weights of dcd_authors mixed with equal ones, share and gamma chosen on the other targets",
    ),
    "hindsight_ceiling_2": (
        partial(_hindsight, sharpness=2.0),
        "no ranking: ranks weighted by softmax(2 x correlation of the true accuracies)",
    ),
    "hindsight_ceiling_5": (partial(_hindsight, sharpness=5.0), "no ranking: likewise with 5 x"),
    "hindsight_ceiling_10": (partial(_hindsight, sharpness=10.0), "no ranking: likewise with 10 x"),
    "source_ceiling": (
        lambda zoo, t: [source_ceiling(zoo.truth[:, t], zoo.others(t))],
        "no ranking: standardised accuracies, softmax(10 x true rank correlation)",
    ),
}


def row(name: str, found: FloatArray, base: FloatArray, *, seed: int) -> dict[str, float | None]:
    """Means over targets of found (S, 4), and gains on base (S, 4)."""
    told: dict[str, float | None] = {}
    for measure, value in zip(MEASURES, found.mean(axis=0), strict=True):
        told[measure] = round(float(value), 6)
    for column, title in enumerate(("authors_gain", "gain")):
        gains = (found - base)[:, column]
        over = None if name == BASE else mean_interval(gains, seed=seed)
        ends = (None, None) if over is None else (round(over.low, 6), round(over.high, 6))
        told |= {title: round(float(gains.mean()), 6), f"{title}_low": ends[0], f"{title}_high": ends[1]}
    return told


def compare(zoo: RealZoo) -> dict[str, dict[str, float | None]]:
    """The row of each ranking."""
    targets = range(len(zoo.tasks))
    found = {name: np.array([measured(zoo, rank, t) for t in targets]) for name, (rank, _) in RANKINGS.items()}
    return {name: row(name, figures, found[BASE], seed=zoo.seed) for name, figures in found.items()}


def measured(zoo: RealZoo, rank: Ranking, target: int) -> FloatArray:
    """`MEASURES` of a ranking on a target, mean over its draws."""
    truth = zoo.truth[:, target]
    figures = [
        [authors_ndcg(score, truth), ndcg(score, truth), tau_b(score, truth), 100.0 * top_k_loss(score, truth, k=1)]
        for score in rank(zoo, target)
    ]
    return np.asarray(np.mean(figures, axis=0), dtype=np.float64)


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    args = parser.parse_args()
    zoo = real_zoo()
    rows = compare(zoo)
    print_head("ranking", "authors' NDCG@5", "NDCG@5", "tau-b", "top-1 loss")
    for name, each in rows.items():
        cells = [*(f"{each[measure]:.3f}" for measure in MEASURES[:3]), f"{each['top1_loss']:.2f}"]
        for column, gain in enumerate(("authors_gain", "gain")):
            if name != BASE:
                cells[column] += f" ({each[gain]:+.3f} [{each[f'{gain}_low']:+.3f}, {each[f'{gain}_high']:+.3f}])"
        print_row(name, *cells)
    record = {
        "rows": [{"ranking": name, "what": RANKINGS[name][1], **each} for name, each in rows.items()],
        "targets": list(zoo.tasks),
        "candidates": len(zoo.candidate_ids),
    }
    write_json(args.write, record)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
