"""What accuracy costs: each model that a search made against latency, parameters and memory, and who is on the front.

What each is worth is by the search's objective, figures on the split of `SearchReport.actual_on`; the search itself
chose by what it expected of new images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmsel_auto.planning.objective import Cost, filled, summed
from vlmsel_auto.reporting.report import CandidateSummary, SearchReport
from vlmsel_auto.tuning.methods import label_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Tradeoff:
    """A model that the user could take, and what it costs."""

    name: str
    method: str  # as people read it
    accuracy: float  # the task's metric on the split of `SearchReport.actual_on`, in [0, 1]
    latency: float  # seconds an image, on the machine of the search
    params: int | None
    memory: int | None  # bytes, of all members of a pool at once
    worth: float  # accuracy less what the objective takes off it; the accuracy where it takes nothing
    on_front: bool  # no other is as accurate and faster, or as fast and more accurate


def tradeoffs(report: SearchReport) -> tuple[Tradeoff, ...]:
    """The best trial of each tuned candidate and the ensemble, fastest first; those of unknown latency are left out."""
    known = {one.id: one for one in report.candidates if one.latency is not None}
    costs = dict(zip(known, filled([_cost(one) for one in known.values()]), strict=True))
    found: list[tuple[str, str, float, tuple[str, ...]]] = [
        (line.candidate, label_of(line.trial.spec.method), line.accuracy, (line.candidate,))
        for line in report.outcomes
        if line.candidate in known
    ]
    pooled = report.ensemble
    if pooled is not None and all(name in known for name in pooled.members):
        accuracy = pooled.test if report.actual_on == "test" else pooled.validation
        if accuracy is not None:
            found.append((f"pool of {len(pooled.members)}", "ensemble", accuracy, pooled.members))
    taken = [summed([_cost(known[name]) for name in members]) for *_, members in found]
    front = _front([(each[2], cost.latency or 0.0) for each, cost in zip(found, taken, strict=True)])
    lines = [
        Tradeoff(
            name=name,
            method=method,
            accuracy=accuracy,
            latency=cost.latency or 0.0,
            params=None if cost.params is None else int(cost.params),
            memory=None if cost.memory is None else int(cost.memory),
            worth=accuracy - report.objective.charge(summed([costs[each] for each in members])),
            on_front=is_front,
        )
        for (name, method, accuracy, members), cost, is_front in zip(found, taken, front, strict=True)
    ]
    return tuple(sorted(lines, key=lambda each: (each.latency, -each.accuracy)))


def _cost(candidate: CandidateSummary) -> Cost:
    return Cost(latency=candidate.latency, params=candidate.params, memory=candidate.memory)


def _front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of points (accuracy, latency): whether none other is at least as good in both and better in one."""
    return [
        not any(a >= accuracy and t <= latency and (a, t) != (accuracy, latency) for a, t in points)
        for accuracy, latency in points
    ]
