"""From a ranking to a plan: an order, soft pruning and audits.

A low candidate is postponed, not lost. It returns when its upper bound beats the leader's lower bound, or when the
leaders stall (`next_trial`); a few postponed candidates are tuned on purpose (audits), so that what pruning cost is
measured and not assumed. Candidates that were not loaded yet are postponed too, and are no audits: they cost a
download.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vlmsel_auto.planning.method import Method, Trains
from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.planning.posterior import Belief, belief_of
from vlmsel_auto.planning.space import DEFAULT, Defaults, Point
from vlmsel_auto.ranks import simulate_ranks
from vlmsel_auto.records import Candidate, FloatArray, Ranking


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanLine:
    """What the plan has for one candidate."""

    candidate: str
    rank: int  # predicted, 1 is the best
    probability_best: float
    postponed: bool
    audit: bool  # postponed, but tuned on purpose
    cost: float  # relative cost of a pass, 1 is the median candidate


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The plan before the first trial, by predicted rank; and the belief that it came from.

    Where the objective charges candidates, ranks are those of what is left of the metric; the belief is of the metric.
    """

    lines: tuple[PlanLine, ...]
    methods: tuple[Method, ...]  # that train, in the order of the table; may be none
    floor: Method | None  # measured once, before all others
    belief: Belief
    seed: int
    defaults: Defaults = field(default_factory=dict)  # where a first trial is; missing: the middle of its space
    loading: Mapping[str, float] = field(default_factory=dict)  # seconds to load those that nobody looked at yet
    relative_costs: Mapping[str, float] = field(default_factory=dict)  # by method, before any was timed; a head takes 1
    charges: Mapping[str, float] = field(default_factory=dict)  # what the objective takes off a candidate's metric
    validation_images: int | None = None  # what a metric is measured on; None: taken as exact
    folds: int = 1  # parts of the labelled images; trials of towers leave out one each, in turn
    policy: Policy = POLICY

    def first(self, candidate: str, method: str) -> Point:
        """Settings of the first trial of a candidate by a method."""
        return self.defaults.get((candidate, method), DEFAULT)

    def charge(self, candidate: str) -> float:
        """What the objective takes off the metric of a candidate."""
        return self.charges.get(candidate, 0.0)

    def column(self, method: str) -> int:
        """Place of a method among those that train."""
        return [each.name for each in self.methods].index(method)

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
    methods: Sequence[Method],
    top_k: int | None = None,
    audits: int = 2,
    seed: int = 0,
    defaults: Defaults | None = None,
    loading: Mapping[str, float] | None = None,
    relative_costs: Mapping[str, float] | None = None,
    charges: Mapping[str, float] | None = None,
    validation_images: int | None = None,
    folds: int = 1,
    policy: Policy = POLICY,
) -> Plan:
    """Order the candidates, postpone the low ones, and draw the audits.

    Args:
        ranking: scores with uncertainty; candidates that it lacks come last, with a wide uncertainty.
        candidates: all of them.
        methods: what may be tried, in the order of the table.
        top_k: how many candidates stay active; None lets the probabilities decide.
        audits: how many postponed candidates are tuned on purpose, drawn at random.
        seed: of the draws.
        defaults: settings of first trials, learned from past ones.
        loading: seconds that the first trial of a candidate takes more, for those that were not loaded yet.
        relative_costs: of a trial by each method against one of a head, before any was timed.
        charges: what the objective takes off the metric of a candidate (`objective`); one that is missing: nothing.
        validation_images: how many images a trial's metric is measured on; None takes it as exact.
        folds: parts of the labelled images that trials of towers are scored on in turn; at least 1.
        policy: constants of the planner.

    Raises:
        ValueError: no candidate, no method, top_k, audits or folds out of range.
    """
    if not methods:
        raise ValueError(f"a plan needs a method, but got {tuple(methods)!r}")
    if (top_k is not None and top_k < 1) or audits < 0 or folds < 1:
        raise ValueError(
            f"top_k and folds must be at least 1 and audits at least 0, but got {top_k=}, {folds=} and {audits=}"
        )
    belief = belief_of(ranking, candidates=candidates, policy=policy)
    off = np.array([(charges or {}).get(each.id, 0.0) for each in candidates])
    worth = belief.mean - off / policy.typical_spread  # in standard units, as far as is known before any trial
    best = simulate_ranks(worth, belief.cov, seed=seed).p_best
    ranked = {name: place for place, name in enumerate(ranking.order)}
    order = sorted(
        range(len(candidates)),
        key=lambda m: (candidates[m].id not in ranked, -worth[m], ranked.get(candidates[m].id, len(ranked)), m),
    )
    costs = _costs(candidates)
    loaded = [m for m in order if candidates[m].id not in (loading or {})] or order
    keep = min(len(loaded), top_k) if top_k is not None else _enough(best[loaded], policy)
    active, below = set(loaded[:keep]), loaded[keep:]
    drawn = np.random.default_rng(seed).permutation(len(below))[: min(audits, len(below))]
    audited = {below[index] for index in drawn.tolist()}
    return Plan(
        lines=tuple(
            PlanLine(
                candidate=candidates[m].id,
                rank=place + 1,
                probability_best=float(best[m]),
                postponed=m not in active,
                audit=m in audited,
                cost=float(costs[m]),
            )
            for place, m in enumerate(order)
        ),
        methods=tuple(each for each in methods if each.trains is not Trains.NOTHING),
        floor=next((each for each in methods if each.trains is Trains.NOTHING), None),
        belief=belief,
        seed=seed,
        defaults=defaults or {},
        loading=loading or {},
        relative_costs=relative_costs or {},
        charges=charges or {},
        validation_images=validation_images,
        folds=folds,
        policy=policy,
    )


def _enough(best: FloatArray, policy: Policy) -> int:
    """How many of the first candidates hold nearly all of the probability."""
    covered = int(np.searchsorted(np.cumsum(best), policy.covered)) + 1
    return min(len(best), max(policy.fewest_active, min(policy.most_active, covered)))


def handicap(plan: Plan, candidate: str) -> float:
    """What a candidate must show beyond the others to go on: 0 for the predicted best, up to `Policy.handicap`."""
    line = next(each for each in plan.lines if each.candidate == candidate)
    top = max(each.probability_best for each in plan.lines)
    return plan.policy.handicap * (1.0 - line.probability_best / top)
