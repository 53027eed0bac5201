"""What models cost once some were timed, what limits, objective and time allow of it, and how many images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vlmsel_auto.cache import Store
from vlmsel_auto.models.embedding import find_embeddings
from vlmsel_auto.models.facts import Facts, facts_of, known_sum
from vlmsel_auto.models.hub import cache_dir
from vlmsel_auto.models.limits import Limits, why_not
from vlmsel_auto.models.machine import Machine, corrected, embedding_seconds, measure
from vlmsel_auto.planning.objective import Cost, Objective, filled, summed
from vlmsel_auto.records import Candidate, FloatArray, Task
from vlmsel_auto.tasks.unlabelled_pool import SECONDS, AsManyAsFit


def measured_latencies(candidates: Sequence[Candidate], task: Task, store: Store) -> dict[str, float]:
    """Seconds an image, by id, of the candidates that were loaded."""
    seen = {one.id: find_embeddings(one, task, task.screened, store=store) for one in candidates}
    return {name: one.seconds for name, one in seen.items() if one is not None and math.isfinite(one.seconds)}


def expected_latencies(
    candidates: Sequence[Candidate], machine: Machine | None, measured: Mapping[str, float]
) -> FloatArray:
    """Seconds an image (M,): as measured, else predicted and corrected by what was; NaN: unknown."""
    found = np.full(len(candidates), np.nan)
    if machine is not None:
        facts = [facts_of(one) for one in candidates]
        now = corrected(machine, [(each, measured[each.candidate]) for each in facts if each.candidate in measured])
        found = np.array([embedding_seconds(each, images=1, machine=now) or np.nan for each in facts])
    for m, one in enumerate(candidates):
        found[m] = measured.get(one.id, found[m])
    return found


def costs_of(candidates: Sequence[Candidate], latencies: FloatArray) -> list[Cost]:
    """What each candidate takes, by latencies (M,) in seconds an image; unknown figures as the median of the known."""
    facts = [facts_of(one) for one in candidates]
    return filled([
        Cost(latency=seconds if math.isfinite(seconds) else None, params=each.params, memory=each.memory_bytes)
        for each, seconds in zip(facts, latencies.tolist(), strict=True)
    ])  # fmt: skip


def charges_of(
    objective: Objective, candidates: Sequence[Candidate], *, machine: Machine | None, measured: Mapping[str, float]
) -> dict[str, float]:
    """What the objective takes off the metric of each candidate, by id; empty where the metric alone counts."""
    if not objective:
        return {}
    costs = costs_of(candidates, expected_latencies(candidates, machine, measured))
    return {one.id: objective.charge(cost) for one, cost in zip(candidates, costs, strict=True)}


def affordable_sample(
    candidates: Sequence[Candidate],
    *,
    machine: Machine | None,
    device: str,
    seconds: float = SECONDS,
    earlier: int | None = None,
) -> AsManyAsFit:
    """A sample of a heap as large as these candidates can embed in so many ``seconds``.

    ``machine`` None: measure it. ``earlier``: images that a search which goes on began with.
    """

    def image_seconds() -> float:
        known = machine or measure(device, cache=cache_dir())
        return float(np.nansum(expected_latencies(candidates, known, {}))) / known.bfloat16_gain

    return AsManyAsFit(candidates=len(candidates), image_seconds=image_seconds, seconds=seconds, earlier=earlier)


def together(
    limits: Limits, candidates: Sequence[Candidate], latencies: Mapping[str, float]
) -> Callable[[Sequence[str]], bool]:
    """Whether models of these candidates, one id for each, keep to the limits when an image passes through all."""
    facts = {one.id: facts_of(one) for one in candidates}

    def fits(ids: Sequence[str]) -> bool:
        members = [facts[name] for name in ids]
        latency = sum(latencies.get(name, 0.0) for name in ids)
        if limits.max_latency is not None and latency > limits.max_latency:
            return False
        return not why_not(_sum(members), limits=replace(limits, max_latency=None, licences=(), image_size=None))

    return fits


def charge_together(
    objective: Objective, candidates: Sequence[Candidate], latencies: Mapping[str, float]
) -> Callable[[Sequence[str]], float] | None:
    """What the objective takes off models of some candidates, one id for each, together; None: nothing of any."""
    if not objective:
        return None
    costs = dict(
        zip((one.id for one in candidates), costs_of(candidates, expected_latencies(candidates, None, latencies)),
            strict=True)
    )  # fmt: skip
    return lambda ids: objective.charge(summed([costs[name] for name in ids]))


def _sum(members: Sequence[Facts]) -> Facts:
    """Parameters and memory of all; a download is of one candidate."""
    return replace(
        members[0],
        params=known_sum([each.params for each in members]),
        memory_bytes=known_sum([each.memory_bytes for each in members]),
        download_bytes=None,
    )
