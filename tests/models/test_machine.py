"""What the machine can do: measured, used for predictions, corrected by what was timed."""

import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from vlmsel_auto.errors import InputError
from vlmsel_auto.models import candidates, zoo
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.models.machine import Machine, _free_memory, corrected, embedding_seconds, measure

MACHINE = Machine(
    device="cpu",
    cores=2,
    memory_bytes=8_000_000_000,
    disk_bytes=50_000_000_000,
    flops_per_second=1e11,
    bytes_per_second=5e9,
)


def facts(name):
    return facts_of(candidates.resolve(name)[0])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    start = time.perf_counter()
    machine = measure("cpu", cache=tmp_path_factory.mktemp("cache") / "not" / "yet")
    return machine, time.perf_counter() - start


def test_a_machine_is_measured_in_seconds(measured):
    machine, seconds = measured
    assert seconds < 20  # a second or two; the machine that runs the tests may be busy
    assert (machine.device, machine.correction) == ("cpu", 1.0)
    assert 1 <= machine.cores <= psutil.cpu_count()
    assert 0 < machine.memory_bytes <= psutil.virtual_memory().total
    assert 0 < machine.disk_bytes <= psutil.disk_usage("/").total
    assert 1e7 < machine.bytes_per_second < machine.flops_per_second < 1e15


def test_a_prediction_is_of_the_order_of_what_is_timed(measured):
    machine, _ = measured
    (candidate,) = candidates.resolve("ViT-Mi-16-64.all-m")
    model, images = zoo.load(candidate, text=False), torch.zeros(64, 3, 64, 64)
    best = min(_timed(model, images) for _ in range(5))
    predicted = embedding_seconds(facts_of(candidate), images=64, machine=machine)
    assert predicted / 20 < best < 20 * predicted


def _timed(model, images):
    start = time.perf_counter()
    with torch.inference_mode():
        model.embed(images)
    return time.perf_counter() - start


def test_seconds_are_operations_over_speed_and_bytes_over_bandwidth():
    found = facts("ViT-B-32/openai")
    by_hand = 10 * (found.flops / 1e11 + found.written / 5e9)
    assert embedding_seconds(found, images=10, machine=MACHINE) == pytest.approx(by_hand)
    assert embedding_seconds(replace(found, written=None), images=10, machine=MACHINE) == pytest.approx(
        10 * found.flops / 1e11
    )
    assert embedding_seconds(replace(found, flops=None), images=10, machine=MACHINE) is None


def test_timed_models_correct_the_others():
    names = ("ViT-B-32/openai", "RN50/openai", "ViT-L-14/openai")
    plain = {name: embedding_seconds(facts(name), images=1, machine=MACHINE) for name in names}
    seen = [(facts(name), ratio * plain[name]) for name, ratio in zip(names, (2.0, 3.0, 40.0), strict=True)]
    once = corrected(MACHINE, seen)
    assert once.correction == pytest.approx(3.0)  # the median: the third was disturbed
    other = facts("ViT-B-16/openai")
    assert embedding_seconds(other, images=1, machine=once) == pytest.approx(
        3 * embedding_seconds(other, images=1, machine=MACHINE)
    )
    assert corrected(once, seen) == once  # a correction is not corrected again
    assert corrected(MACHINE, [(replace(other, flops=None), 9.0)]) == MACHINE
    assert corrected(once, []) == once


def test_a_container_may_take_less_than_the_system_has(tmp_path):
    assert _free_memory(1000, folder=tmp_path) == 1000
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert _free_memory(1000, folder=tmp_path) == 1000
    (tmp_path / "memory.max").write_text("900\n")
    assert _free_memory(1000, folder=tmp_path) == 600
    (tmp_path / "memory.max").write_text("200\n")
    assert _free_memory(1000, folder=tmp_path) == 0


def test_the_cache_may_lie_where_this_user_may_not_look(tmp_path):
    assert measure("cpu", cache=tmp_path / ("x" * 300) / "hub").disk_bytes > 0


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="but got"):
        measure("cuda:99", cache=Path())
