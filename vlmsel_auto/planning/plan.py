"""From a ranking to trials: an order, soft pruning, audits, and after every trial the step that promises most.

Pure: nothing here trains, reads or writes. A low candidate is postponed, not lost. It returns when its upper bound
beats the leader's lower bound, or when the leaders stall; a few postponed candidates are tuned on purpose (audits), so
that what pruning cost is measured and not assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vlmsel_auto.planning.posterior import Belief, belief_of, probability_best
from vlmsel_auto.planning.space import Defaults, Point
from vlmsel_auto.records import Candidate, FloatArray, Method, Ranking

__all__ = ["METHODS", "Plan", "PlanLine", "handicap", "make_plan"]

METHODS: tuple[Method, ...] = ("probe", "finetune")
_COVERED = 0.95  # the active candidates hold this much probability of the best
_FEW, _MANY = 3, 8  # bounds on the number of active candidates when the caller sets none
_HANDICAP = 0.02  # of the metric
_TUNE_COST = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanLine:
    """What the plan has for one candidate."""

    candidate: str
    rank: int  # predicted, 1 is the best
    probability_best: float
    share: float  # of the trials, as planned before the first
    postponed: bool
    audit: bool  # postponed, but tuned on purpose
    cost: float  # relative cost of a fine-tuning trial, 1 is the median candidate


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The plan before the first trial, by predicted rank; and the belief that it came from."""

    lines: tuple[PlanLine, ...]
    methods: tuple[Method, ...]
    belief: Belief
    seed: int
    defaults: Defaults = field(default_factory=dict)  # where a first trial is; missing: the middle of its space
    tune_cost: float = _TUNE_COST  # of fine-tuning against a probe, before either was timed
    validation_images: int | None = None  # what a metric is measured on; None: taken as exact

    def first(self, candidate: str, method: Method) -> Point:
        """Hyperparameters of the first trial of a candidate by a method."""
        return self.defaults.get((candidate, method), Point())

    @property
    def order(self) -> tuple[str, ...]:
        """Candidate ids by predicted rank."""
        return tuple(line.candidate for line in self.lines)

    @property
    def active(self) -> tuple[str, ...]:
        """Candidates that are not postponed, by predicted rank."""
        return tuple(line.candidate for line in self.lines if not line.postponed)

    @property
    def audits(self) -> tuple[str, ...]:
        """Postponed candidates that are tuned on purpose."""
        return tuple(line.candidate for line in self.lines if line.audit)


def _costs(candidates: Sequence[Candidate]) -> FloatArray:
    """Relative cost (M,) of a pass: by FLOPs, else by parameters, else equal."""
    flops = [each.flops for each in candidates]
    sizes = flops if all(flops) else [each.params for each in candidates]
    if not all(sizes):
        return np.ones(len(candidates))
    costs = np.array([float(size or 1) for size in sizes])
    return costs / float(np.median(costs))


def make_plan(
    ranking: Ranking,
    *,
    candidates: Sequence[Candidate],
    methods: Sequence[Method] = METHODS,
    top_k: int | None = None,
    audits: int = 2,
    seed: int = 0,
    defaults: Defaults | None = None,
    tune_cost: float = _TUNE_COST,
    validation_images: int | None = None,
) -> Plan:
    """Order the candidates, postpone the low ones, and draw the audits.

    Args:
        ranking: scores with uncertainty; candidates that it lacks come last, with a wide uncertainty.
        candidates: all of them.
        methods: what may be tried.
        top_k: how many candidates stay active; None lets the probabilities decide (3 to 8).
        audits: how many postponed candidates are tuned on purpose, drawn at random.
        seed: of the draws.
        defaults: hyperparameters of first trials, learned from past ones.
        tune_cost: of a fine-tuning trial against a probe, before either was timed.
        validation_images: how many images a trial's metric is measured on; None takes it as exact.

    Raises:
        ValueError: no candidate, no or an unknown method, top_k or audits out of range.
    """
    if not methods or any(method not in METHODS for method in methods):
        raise ValueError(f"methods must be some of {METHODS}, but got {tuple(methods)!r}")
    if (top_k is not None and top_k < 1) or audits < 0:
        raise ValueError(f"top_k must be at least 1 and audits at least 0, but got {top_k=} and {audits=}")
    belief = belief_of(ranking, candidates=candidates)
    best = probability_best(belief.mean, belief.cov, seed=seed)
    ranked = {name: place for place, name in enumerate(ranking.order)}
    order = sorted(
        range(len(candidates)), key=lambda m: (ranked.get(candidates[m].id, len(ranked)), -belief.mean[m], m)
    )
    costs = _costs(candidates)
    keep = min(len(order), top_k) if top_k is not None else _enough(best[order])
    below = order[keep:]
    drawn = np.random.default_rng(seed).permutation(len(below))[: min(audits, len(below))]
    audited = {below[index] for index in drawn.tolist()}
    share = best + 1.0 / len(order) ** 2
    share = share / share.sum()
    return Plan(
        lines=tuple(
            PlanLine(
                candidate=candidates[m].id,
                rank=place + 1,
                probability_best=float(best[m]),
                share=float(share[m]),
                postponed=place >= keep,
                audit=m in audited,
                cost=float(costs[m]),
            )
            for place, m in enumerate(order)
        ),
        methods=tuple(method for method in METHODS if method in methods),
        belief=belief,
        seed=seed,
        defaults=defaults or {},
        tune_cost=tune_cost,
        validation_images=validation_images,
    )


def _enough(best: FloatArray) -> int:
    """How many of the first candidates hold nearly all of the probability."""
    covered = int(np.searchsorted(np.cumsum(best), _COVERED)) + 1
    return min(len(best), max(_FEW, min(_MANY, covered)))


def handicap(plan: Plan, candidate: str, *, size: float = _HANDICAP) -> float:
    """What a candidate must show beyond the others not to be pruned: 0 for the predicted best, up to ``size``."""
    line = next(each for each in plan.lines if each.candidate == candidate)
    top = max(each.probability_best for each in plan.lines)
    return size * (1.0 - line.probability_best / top)
