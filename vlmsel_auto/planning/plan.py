"""From a ranking to a plan: an order, and soft pruning.

The first candidates are active: their heads come first, and their towers before those of others. The others are
postponed, not lost: they come when no trial of the active ones is worth its time any more. Candidates that were not
loaded yet are postponed too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from vlmsel_auto.planning.method import Method, Trains
from vlmsel_auto.planning.policy import POLICY, Policy
from vlmsel_auto.planning.trial_posterior import TrialPrior, trial_prior
from vlmsel_auto.records import Candidate, FloatArray, Ranking

ACTIVE: Final = 8  # candidates, where the caller names no number: as many as an ensemble has


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """What a search is like, as far as planning must know."""

    seed: int = 0  # of moves near the best settings
    loading: Mapping[str, float] = field(default_factory=dict)  # seconds to load those that nobody screened yet
    relative_costs: Mapping[str, float] = field(default_factory=dict)  # by method, before any was timed; others take 1
    charges: Mapping[str, float] = field(default_factory=dict)  # what the objective takes off a candidate's metric
    validation_images: int | None = None  # what a metric is measured on; None: taken as exact
    folds: int = 1  # of the labelled images; each fit of a tower leaves out one
    members: int = 1  # towers that the user's ensemble may have; 0 and 1: there is no ensemble
    policy: Policy = POLICY


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan(Conditions):
    """The plan before the first trial, and the belief that it came from.

    Where the objective charges candidates, the order is that of what is left of the metric; the belief is of the
    metric.
    """

    order: tuple[str, ...]  # candidate ids by predicted rank
    active: tuple[str, ...]  # those that are not postponed, likewise
    costs: Mapping[str, float]  # relative cost of a pass, 1 is the median candidate
    methods: tuple[Method, ...]  # that train, in the order of the table; may be none
    zero_shot: Method | None  # measured once, before all others
    nameless: frozenset[str]  # candidates that have no zero-shot classifier
    belief: TrialPrior

    def charge(self, candidate: str) -> float:
        """What the objective takes off the metric of a candidate."""
        return self.charges.get(candidate, 0.0)

    def column(self, method: str) -> int:
        """Place of a method among those that train."""
        return [each.name for each in self.methods].index(method)

    def rank(self, candidate: str) -> int:
        """Predicted, 1 is the best."""
        return self.order.index(candidate) + 1


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
    top_k: int = ACTIVE,
    conditions: Conditions = Conditions(),
) -> Plan:
    """Order the candidates and postpone the low ones.

    Args:
        ranking: scores with uncertainty; candidates that it lacks come last, with a wide uncertainty.
        candidates: all of them.
        methods: what may be tried, in the order of the table.
        top_k: how many candidates stay active.
        conditions: what the search is like.

    Raises:
        ValueError: no candidate, no method, or top_k below 1.
    """
    if not methods or top_k < 1:
        raise ValueError(f"a plan needs a method and a top_k of 1 or more, but got {tuple(methods)!r} and {top_k=}")
    belief = trial_prior(ranking, candidates=candidates)
    off = np.array([conditions.charges.get(each.id, 0.0) for each in candidates])
    worth = (
        belief.mean - off / conditions.policy.typical_spread
    )  # in standard units, as far as is known before any trial
    ranked = {name: place for place, name in enumerate(ranking.order)}
    places = sorted(
        range(len(candidates)),
        key=lambda m: (candidates[m].id not in ranked, -worth[m], ranked.get(candidates[m].id, len(ranked)), m),
    )
    order = tuple(candidates[m].id for m in places)
    loaded = tuple(name for name in order if name not in conditions.loading) or order
    return Plan(
        order=order,
        active=loaded[:top_k],
        costs=dict(zip([each.id for each in candidates], _costs(candidates).tolist(), strict=True)),
        methods=tuple(each for each in methods if each.trains is not Trains.NOTHING),
        zero_shot=next((each for each in methods if each.trains is Trains.NOTHING), None),
        nameless=frozenset(each.id for each in candidates if not each.has_text),
        belief=belief,
        **vars(conditions),
    )
