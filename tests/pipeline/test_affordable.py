from dataclasses import replace

import numpy as np
import pytest

from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.models.limits import NO_LIMITS, Limits
from vlmsel_auto.models.machine import Machine, embedding_seconds
from vlmsel_auto.pipeline.affordable import affordable_sample, charge_together, charges_of, expected_latencies, together
from vlmsel_auto.planning.objective import Objective

NAMES = ("ViT-Mi-8-64.all-l", "RN-Mi-64.glyph-s", "ViT-Mi-4-32.all-m")
CANDIDATES = resolve(NAMES)
MACHINE = Machine(
    device="cpu", cores=1, memory_bytes=1 << 33, disk_bytes=1 << 33, flops_per_second=1e10, bytes_per_second=1e10
)


def predicted(name: str) -> float:
    (candidate,) = resolve(name)
    return embedding_seconds(facts_of(candidate), images=1, machine=MACHINE) or 0.0


def test_what_was_timed_corrects_what_was_not():
    plain = expected_latencies(CANDIDATES, MACHINE, {})
    assert plain == pytest.approx([predicted(name) for name in NAMES])
    twice = expected_latencies(CANDIDATES, MACHINE, {NAMES[0]: 2 * predicted(NAMES[0])})
    assert twice == pytest.approx(2 * plain)


def test_without_a_machine_only_what_was_timed_is_known():
    found = expected_latencies(CANDIDATES, None, {NAMES[1]: 0.004})
    assert found[1] == 0.004
    assert np.isnan(found[[0, 2]]).all()


def test_an_objective_charges_what_was_timed_or_is_expected():
    objective = Objective(latency=1)
    timed = {NAMES[0]: 0.01, NAMES[1]: 0.04}
    found = charges_of(objective, CANDIDATES, machine=None, measured=timed)
    assert found[NAMES[0]] == pytest.approx(0.0)
    assert found[NAMES[1]] == pytest.approx(0.02)
    assert found[NAMES[2]] == pytest.approx(0.01 * np.log2(2.5))  # unknown: the middle of the others
    expected = charges_of(objective, CANDIDATES, machine=MACHINE, measured={})
    assert expected[NAMES[2]] == pytest.approx(0.01 * np.log2(predicted(NAMES[2]) / 0.01))
    assert charges_of(Objective(), CANDIDATES, machine=MACHINE, measured=timed) == {}
    assert charge_together(Objective(), CANDIDATES, timed) is None
    both = charge_together(objective, CANDIDATES, timed)
    assert both([NAMES[0], NAMES[0]]) == pytest.approx(0.01)  # two passes


def test_a_sample_is_as_large_as_all_candidates_can_embed():
    sample = affordable_sample(CANDIDATES, machine=MACHINE, device="cpu")
    assert sample.candidates == len(NAMES)
    assert sample.image_seconds() == pytest.approx(sum(predicted(name) for name in NAMES))
    quick = affordable_sample(CANDIDATES, machine=replace(MACHINE, bfloat16_gain=2.0), device="cpu")
    assert quick.image_seconds() == pytest.approx(sample.image_seconds() / 2)
    hurried = affordable_sample(CANDIDATES, machine=MACHINE, device="cpu", seconds=5.0, earlier=12)
    assert (hurried.seconds, hurried.earlier) == (5.0, 12)


def test_models_together_cost_the_sum():
    sizes = [one.params or 0 for one in CANDIDATES]
    fits = together(Limits(max_params=sizes[0] + sizes[1]), CANDIDATES, {})
    assert fits(NAMES[:1])
    assert fits(NAMES[:2])
    assert not fits(NAMES)
    assert not fits([NAMES[0], NAMES[0], NAMES[1]])  # a head and a tower of one candidate are two models
    slow = together(Limits(max_latency=0.010), CANDIDATES, {NAMES[0]: 0.006, NAMES[1]: 0.003})
    assert slow(NAMES[:2])
    assert not slow([NAMES[0], NAMES[0]])
    assert together(NO_LIMITS, CANDIDATES, {})([*NAMES, *NAMES])
