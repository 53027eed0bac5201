import os
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from helpers.tuning_world import candidate, digits, run, spec, store
from vlmsel_auto.cache import Store
from vlmsel_auto.errors import TrialDiverged, TrialOutOfMemory
from vlmsel_auto.events import Event, TrialEpoch
from vlmsel_auto.models import zoo
from vlmsel_auto.records import Candidate
from vlmsel_auto.tuning import finetune
from vlmsel_auto.tuning.checkpoints import has_weights, load_trial
from vlmsel_auto.tuning.data import Batches, Measured, image_set, splits
from vlmsel_auto.tuning.module import EpochReport, Kept

__all__ = ["candidate", "store"]  # fixtures


def test_fine_tuning_ends_with_the_best_epoch_and_its_weights(
    tmp_path: Path, candidate: Candidate, store: Store
) -> None:
    events: list[Event] = []
    result = run(tmp_path, candidate, store, spec(), sink=events.append)
    assert result.state == "complete"
    assert (result.epochs_run, len(result.curve)) == (3, 3)
    assert result.start is not None
    assert result.validation is not None
    assert result.validation >= result.start
    assert result.kept_epoch is not None
    if result.kept_epoch:
        assert result.validation == result.curve[result.kept_epoch - 1]
    assert [each.epoch for each in events if isinstance(each, TrialEpoch)] == [1, 2, 3]
    kept = load_trial(tmp_path, 5)
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


def test_the_same_seed_gives_the_same_trial(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    first = run(tmp_path / "a", candidate, store, spec(epochs=2))
    again = run(tmp_path / "b", candidate, store, spec(epochs=2))
    other = run(tmp_path / "c", candidate, store, spec(epochs=2, seed=1))
    assert first.curve == again.curve
    same, different = load_trial(tmp_path / "b", 5), load_trial(tmp_path / "c", 5)
    assert np.array_equal(load_trial(tmp_path / "a", 5).weight, same.weight)
    assert other.kept_epoch == 0 or not np.array_equal(same.weight, different.weight)


def test_probe_by_the_same_door(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    result = run(tmp_path, candidate, store, spec(method="probe", epochs=20, learning_rate=5e-3))
    assert result.state == "complete"
    assert result.test is not None
    assert load_trial(tmp_path, 5).visual is None
    begun = time.process_time()
    run(tmp_path, candidate, store, spec(method="probe", epochs=60, learning_rate=5e-3))
    assert time.process_time() - begun < 1.0  # features are cached


def test_zero_epochs_are_zero_shot(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    tuned = run(tmp_path, candidate, store, spec(epochs=0))
    probed = run(tmp_path, candidate, store, spec(epochs=0, method="probe"))
    assert tuned.validation == probed.validation == tuned.start
    assert tuned.test == probed.test
    assert tuned.kept_epoch == 0


def test_pruning_ends_gracefully_without_weights(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    result = run(tmp_path, candidate, store, spec(epochs=4), report=lambda epoch, _validation, _loss: epoch == 2)
    assert result.state == "pruned"
    assert result.epochs_run == 2
    assert result.reason.startswith("pruned after 2 of 4 epochs")
    assert result.test is None
    assert not has_weights(tmp_path, 5)


def test_deadline_ends_a_trial_with_what_it_has(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    begun = time.monotonic()
    result = run(tmp_path, candidate, store, spec(epochs=100_000), deadline=time.monotonic() + 3.0)
    assert time.monotonic() - begun < 20.0  # all epochs would take hours; tests run on busy machines
    assert result.state == "pruned"
    assert "the time budget ended after" in result.reason
    assert result.validation is not None
    over = run(tmp_path, candidate, store, spec(), deadline=time.monotonic() - 1)
    assert over.state == "pruned"
    assert over.curve == ()


def test_divergence(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    with pytest.raises(TrialDiverged, match="lower the learning rate"):
        run(tmp_path, candidate, store, spec(learning_rate=1e30, epochs=2))


def test_out_of_memory_halves_the_batch_then_fails(
    tmp_path: Path, candidate: Candidate, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, batches = finetune.train, []

    def hungry(*given: object, batch: int, accumulate: int) -> object:
        batches.append((batch, accumulate))
        if batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*given, batch=batch, accumulate=accumulate)

    monkeypatch.setattr(finetune, "train", hungry)
    assert run(tmp_path, candidate, store, spec(epochs=1)).state == "complete"
    assert batches == [(8, 1), (4, 2)]

    def starved(*given: object, **others: object) -> object:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(finetune, "train", starved)
    with pytest.raises(TrialOutOfMemory, match="does not fit into the memory of cpu"):
        run(tmp_path, candidate, store, spec(epochs=1))


def test_other_errors_are_not_taken_for_memory(
    tmp_path: Path, candidate: Candidate, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object, **others: object) -> object:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(finetune, "train", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(tmp_path, candidate, store, spec())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_keyboard_interrupts_and_handlers_come_back(
    number: signal.Signals, tmp_path: Path, candidate: Candidate, store: Store
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def sink(event: Event) -> None:
        if isinstance(event, TrialEpoch):
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, candidate, store, spec(epochs=50), sink=sink)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_nothing_is_printed_and_no_warning_escapes(
    tmp_path: Path, candidate: Candidate, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run(tmp_path, candidate, store, spec(epochs=1))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert [str(each.message) for each in seen if "lightning" in str(each.filename)] == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["trials"]  # no logs or checkpoints of Lightning


def test_a_missing_metric_is_an_error() -> None:
    import lightning.pytorch as pl

    from vlmsel_auto.tuning.work import Deadline

    start = Kept(best=Measured(metric=0.0, soft=0.0, loss=0.0), state={})
    callback = EpochReport(kept=start, hook=lambda *_: False, deadline=Deadline(), reserve=0.0)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(RuntimeError, match="'validation' was not logged"):
        callback.on_validation_end(trainer, pl.LightningModule())


def test_batches_cover_every_image_once_also_when_not_resident(candidate: Candidate) -> None:
    task = digits()
    for limit in (0, 2**30):
        images = image_set(task, view=candidate.view, indices=task.train, resident_bytes=limit)
        assert (images.resident is None) == (limit == 0)
        batches = Batches(images=images, size=16, generator=torch.Generator().manual_seed(0))
        seen = [(pixels.shape[1:], labels) for pixels, labels in batches]
        assert len(seen) == len(batches) == 3
        assert all(shape == (64, 64, 3) for shape, _ in seen)
        labels = torch.cat([each for _, each in seen])
        assert torch.equal(labels.sort().values, torch.from_numpy(np.sort(task.labels[task.train])))
        assert not torch.equal(torch.cat([each for _, each in batches]), labels)  # shuffled anew


def test_splits_thin_large_validation_sets_and_refuse_empty_ones() -> None:
    task = digits()
    assert len(splits(task, max_val=7).val) == 7
    assert np.array_equal(splits(task, max_val=7).val, splits(task, max_val=7).val)
    assert np.bincount(task.labels[splits(task, train_shots=2).train]).tolist() == [2, 2, 2, 2]
    import dataclasses

    with pytest.raises(ValueError, match="needs training and validation images"):
        splits(dataclasses.replace(task, val=task.val[:0]))
