"""What accuracy costs: each model that a search made against its latency and parameters, and who is on the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmsel_auto.reporting.report import SearchReport
from vlmsel_auto.tuning.methods import label_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Tradeoff:
    """A model that the user could take, and what it costs."""

    name: str
    method: str  # as people read it
    accuracy: float  # the task's metric on the split of `SearchReport.actual_on`, in [0, 1]
    latency: float  # seconds an image, on the machine of the search
    params: int | None
    on_front: bool  # no other is as accurate and faster, or as fast and more accurate


def tradeoffs(report: SearchReport) -> tuple[Tradeoff, ...]:
    """The best trial of each tuned candidate and the ensemble, fastest first; those of unknown latency are left out."""
    known = {one.id: one for one in report.candidates if one.latency is not None}
    found = [
        (line.candidate, label_of(line.trial.spec.method), line.accuracy, known[line.candidate].latency or 0.0,
         known[line.candidate].params)
        for line in report.outcomes
        if line.candidate in known
    ]  # fmt: skip
    pooled = report.ensemble
    if pooled is not None and all(name in known for name in pooled.members):
        accuracy = pooled.test if report.actual_on == "test" else pooled.validation
        if accuracy is not None:
            latency = sum(known[name].latency or 0.0 for name in pooled.members)
            found.append((f"pool of {len(pooled.members)}", "ensemble", accuracy, latency, pooled.params))
    found.sort(key=lambda each: (each[3], -each[2]))
    front = _front([(accuracy, latency) for _, _, accuracy, latency, _ in found])
    return tuple(
        Tradeoff(name=name, method=method, accuracy=accuracy, latency=latency, params=params, on_front=is_front)
        for (name, method, accuracy, latency, params), is_front in zip(found, front, strict=True)
    )


def _front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of points (accuracy, latency): whether none other is at least as good in both and better in one."""
    return [
        not any(a >= accuracy and t <= latency and (a, t) != (accuracy, latency) for a, t in points)
        for accuracy, latency in points
    ]
