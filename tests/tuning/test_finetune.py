import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from helpers.tuning_world import NAME, Tune, candidate, digits, run, spec, store, tune
from vlmsel_auto.cache import Store
from vlmsel_auto.errors import TrialOutOfMemory
from vlmsel_auto.events import Event, Notice, TrialEpoch
from vlmsel_auto.models import precision, zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.planning.method import Part
from vlmsel_auto.records import Candidate
from vlmsel_auto.tuning import finetune
from vlmsel_auto.tuning import module as epochs
from vlmsel_auto.tuning.checkpoints import has_weights, load_trial
from vlmsel_auto.tuning.memory import Way
from vlmsel_auto.tuning.paused import has_paused, load_paused

__all__ = ["candidate", "store", "tune"]  # fixtures


def test_fine_tuning_ends_with_the_last_epoch_and_its_weights(tune: Tune, tmp_path: Path, candidate: Candidate) -> None:
    events: list[Event] = []
    result = tune(spec(), sink=events.append)
    assert result.state == "complete"
    assert (result.epochs_run, len(result.curve)) == (3, 3)
    assert result.start is not None
    assert result.validation is not None
    assert result.kept_epoch == 3
    assert result.validation == result.curve[-1]
    assert [each.epoch for each in events if isinstance(each, TrialEpoch)] == [1, 2, 3]
    kept = load_trial(tmp_path, result)
    model = zoo.load(candidate)
    if kept.visual is not None:
        model.visual.load_state_dict(dict(kept.visual))
    task = digits()
    for indices, measured, soft in (
        (task.val, result.validation, result.soft_validation),
        (task.test, result.test, None),
    ):
        embedded = model.embed(model.normalise(task.pixels.read(candidate.view, np.sort(indices))))
        unit = torch.nn.functional.normalize(embedded, dim=-1).numpy()
        logits = kept.scale * unit @ kept.weight.T + kept.bias
        labels = task.labels[np.sort(indices)]
        assert (logits.argmax(axis=1) == labels).mean() == measured
        if soft is not None:
            true = softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
            assert soft == pytest.approx(true.mean(), abs=1e-4)
            assert np.allclose(kept.held_out_logits, logits, atol=1e-4)


def test_a_large_tower_is_tuned_in_bfloat16_and_measured_in_float32(
    tmp_path: Path, candidate: Candidate, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = replace(candidate, flops=1e10)
    ways = iter([0.02, 0.01] * 9)  # bfloat16 is the quicker way, whatever the clock says
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda _: True)
    monkeypatch.setattr(precision, "_timed", lambda encode, few: (encode(few), next(ways)))
    mixed: dict[bool, set[bool]] = {True: set(), False: set()}  # by whether a pass has gradients

    def load(one: Candidate) -> LoadedModel:
        model = zoo.load(one)
        model.visual.register_forward_hook(
            lambda *_: mixed[torch.is_grad_enabled()].add(torch.is_autocast_enabled("cpu"))
        )
        return model

    result = run(tmp_path, large, store, spec(), load=load)
    assert result.state == "complete"
    assert mixed == {True: {True}, False: {False}}
    kept = load_trial(tmp_path, result)
    assert {each.dtype for each in kept.visual.values() if each.is_floating_point()} == {torch.float32}
    exact = run(tmp_path / "exact", candidate, store, spec())
    assert result.curve == pytest.approx(exact.curve, abs=0.1)
    assert result.curve != exact.curve or result.soft_validation != exact.soft_validation


def test_every_image_is_seen_no_oftener_than_it_must_be(tune: Tune) -> None:
    tune(spec(epochs=1))  # embeds the images for the head
    seen = []

    def load(one: Candidate) -> LoadedModel:
        model = zoo.load(one)
        model.visual.register_forward_hook(lambda _module, given, _found: seen.append(len(given[0])))
        return model

    tune(spec(), load=load)
    assert sum(seen) == 3 * 40 + (1 + 3) * 20 + 20 + 3  # training; validation before and after; test; memory


def test_another_seed_is_another_trial(tune: Tune, tmp_path: Path) -> None:
    first, other = (load_trial(tmp_path, tune(spec(epochs=1, seed=seed), number=seed)).weight for seed in (0, 1))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("images", "on_cpu", "on_gpu"),
    [(10, 8, 8), (100, 16, 16), (300, 32, 32), (4_095, 32, 32), (4_096, 64, 64), (50_000, 64, 128)],
)
def test_batches_leave_many_steps(images: int, on_cpu: int, on_gpu: int) -> None:
    assert finetune.batch_size(images, torch.device("cpu")) == on_cpu
    assert finetune.batch_size(images, torch.device("cuda")) == on_gpu


def test_where_memory_runs_out_a_lighter_way_is_taken(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tried, heard, least = finetune.train, [], [], 4

    def hungry(*given: object, part: Part, way: Way) -> object:
        tried.append((part, way))
        if part is Part.TOWER and way.batch > least:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*given, part=part, way=way)

    monkeypatch.setattr(finetune, "train", hungry)
    assert tune(spec(epochs=1), sink=heard.append).state == "complete"
    ways = [Way(batch=8), Way(batch=8, recomputes=True), Way(batch=4, accumulate=2, recomputes=True)]
    assert tried == [(Part.TOWER, way) for way in ways]
    (told,) = [each.text for each in heard if isinstance(each, Notice)]
    assert told.endswith("is fine-tuned with less memory: blocks are computed again, batches of 4 images, 8 a step")

    least = 0
    tried.clear()
    assert tune(spec(epochs=1), sink=heard.append).state == "complete"
    assert tried[-2:] == [(Part.TOWER, Way(batch=1, accumulate=8, recomputes=True)), (Part.LOW_RANK, Way(batch=8))]
    assert heard[-2:][0].text == f"{NAME}: for want of memory only this is trained: matrices of low rank"

    for text, kind in (
        ("DefaultCPUAllocator: can't allocate memory", TrialOutOfMemory),
        ("no such axis", RuntimeError),
    ):

        def fails(*_: object, text: str = text, **__: object) -> object:
            raise RuntimeError(text)

        monkeypatch.setattr(finetune, "train", fails)
        with pytest.raises(kind, match=r"no such axis|does not fit into the memory of cpu"):
            tune(spec(epochs=1))


def test_a_tower_that_fits_in_no_way_fails_before_it_takes_memory(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "free_memory", lambda _: 10_000)
    with pytest.raises(TrialOutOfMemory, match=r"no more than its projection: [0-9.]+ [kM]B needed, 10(\.0)? kB free"):
        tune(spec(epochs=1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_keyboard_interrupts_and_handlers_come_back(tune: Tune, number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def sink(event: Event) -> None:
        if isinstance(event, TrialEpoch):
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        tune(spec(epochs=50), sink=sink)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_nothing_is_printed_and_no_warning_escapes(
    tune: Tune, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        tune(spec(epochs=1))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert [str(each.message) for each in seen if "lightning" in str(each.filename)] == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["trials"]  # no logs or checkpoints of Lightning


def killed_after(epoch: int) -> Callable[[int, float, float], bool]:
    def report(now: int, validation: float, loss: float) -> bool:
        del validation, loss
        if now > epoch:
            raise KeyboardInterrupt
        return False

    return report


@pytest.mark.parametrize("method", ["finetune", "lora", "last_blocks", "projection"])
def test_a_continued_trial_is_the_trial_that_was_never_interrupted(
    tune: Tune, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "_SAVE_EVERY", 0.0)
    (member,) = resolve("ViT-Mi-16-64.all-m")
    tune = partial(tune, candidates=[member])
    plan = spec(candidate=member.id, epochs=4, method=method)
    whole = tune(plan, number=0)
    assert not has_paused(tmp_path, 0)  # a finished trial needs none
    with pytest.raises(KeyboardInterrupt):
        tune(plan, number=1, report=killed_after(1))
    assert load_paused(tmp_path, 1).progress.curve == whole.curve[:1]
    assert not has_weights(tmp_path, 1)
    with pytest.raises(KeyboardInterrupt):
        tune(plan, number=2, report=killed_after(3), continues=1)
    before = load_paused(tmp_path, 2).progress
    assert before.curve == whole.curve[:3]
    rest = tune(plan, number=3, continues=2)
    same = ("spec", "state", "validation", "soft_validation", "test", "curve", "epochs_run", "start", "kept_epoch")
    assert rest.fidelity == whole.fidelity
    assert {name: getattr(rest, name) for name in same} == {name: getattr(whole, name) for name in same}
    assert rest.continues == 2
    assert rest.cost == pytest.approx(rest.seconds + before.seconds)
    first, second = load_trial(tmp_path, whole), load_trial(tmp_path, rest)
    assert np.array_equal(first.weight, second.weight)
    assert (first.visual is None) == (second.visual is None)
    start = zoo.load(member).visual.state_dict()
    assert set(start) == set(first.visual)
    for name, value in first.visual.items():
        assert torch.equal(value, second.visual[name])
    moved = {name for name, value in first.visual.items() if not torch.equal(value, start[name])}
    parts = {
        "finetune": lambda name: True,
        "lora": lambda name: ".attn." in name and "bias" not in name,
        "last_blocks": lambda name: "resblocks.4." in name or "resblocks.5." in name or "resblocks" not in name,
        "projection": lambda name: name == "proj" or name.startswith("ln_post"),
    }
    assert moved
    assert all(parts[method](name) for name in moved)


def test_a_rate_that_unlearns_is_told_and_a_third_of_it_taken(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Event] = []
    high = spec(learning_rate=0.03, epochs=5)
    gentler = tune(high, sink=heard.append)
    (told,) = [each.text for each in heard if isinstance(each, Notice)]
    assert told.startswith(f"{NAME}: after 20 steps the loss is 1.")
    assert told.endswith(", of a guess 1.4; training begins again at a third of the rate, 0.01")
    monkeypatch.setattr(finetune, "_GENTLER", 0)
    as_asked = tune(high, sink=heard.append)
    assert gentler.validation > as_asked.validation + 0.2
    assert gentler.curve == tune(spec(learning_rate=0.01, epochs=5), sink=heard.append).curve
    assert [each.text for each in heard if isinstance(each, Notice)] == [told]
