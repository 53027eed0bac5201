import itertools
import math
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tuning_world import candidate, digits, run, spec, store
from vlmsel_auto.cache import Store
from vlmsel_auto.errors import CandidateError, TrialDiverged, TrialUnavailable
from vlmsel_auto.models import zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate, Task, TrialResult
from vlmsel_auto.tuning.averaging import MOST_FITS
from vlmsel_auto.tuning.checkpoints import has_weights, load_trial
from vlmsel_auto.tuning.finetune import batch_size
from vlmsel_auto.tuning.run import fit_on_all_labels
from vlmsel_auto.tuning.work import Deadline

__all__ = ["candidate", "store"]  # fixtures


def with_folds() -> Task:
    whole = digits()
    return replace(whole, folds=(whole.val, *np.split(whole.train, 2)))


@pytest.fixture(scope="module")
def trained(candidate: Candidate, store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialResult, Path]:
    """A fine-tuning trial and its work directory."""
    workdir = tmp_path_factory.mktemp("trained")
    return run(workdir, candidate, store, spec(epochs=1), task=with_folds()), workdir


Folded = tuple[TrialResult, Callable[..., TrialResult | None]]


@pytest.fixture
def folded(tmp_path: Path, candidate: Candidate, store: Store, trained: tuple[TrialResult, Path]) -> Folded:
    """The trial in a work directory of its own, and how it is fitted on all labels, as often as may be."""
    done, workdir = trained
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    task, result = with_folds(), replace(done, validation=0.0)  # any fit is better
    fit = partial(fit_on_all_labels, result, task=task, candidate=candidate, store=store, workdir=tmp_path, price=0.0)
    return result, fit


def test_probe_by_the_same_door(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    result = run(tmp_path, candidate, store, spec(method="probe", settings={}, epochs=0))
    assert result.state == "complete"
    assert result.test is not None
    assert load_trial(tmp_path, result).visual is None
    begun = time.process_time()
    run(tmp_path, candidate, store, spec(method="probe", settings={}, epochs=0))
    assert time.process_time() - begun < 1.0  # features are cached


NO_MEMORY = RuntimeError("DefaultCPUAllocator: can't allocate memory")
MEAN = MOST_FITS + 1  # time that the candidate is loaded: once for each fit, then for their mean


def diverging(candidate: Candidate) -> LoadedModel:
    model = zoo.load(candidate)
    for each in model.visual.parameters():
        each.data.fill_(math.nan)
    return model


@pytest.mark.parametrize(
    ("failing", "kept"),
    [
        ({}, MOST_FITS),
        (dict.fromkeys((2, 3, 4), NO_MEMORY), 1),  # the second fit, with batches of each size
        (dict.fromkeys((3, 4, 5), NO_MEMORY), 2),
        ({3: diverging}, 2),
        ({MEAN: NO_MEMORY}, 1),
        ({MEAN: MemoryError()}, 1),
        ({MEAN: TrialUnavailable("the weights are gone")}, 1),
        ({MEAN: CandidateError("the folder is gone")}, 1),
    ],
)
def test_what_fails_after_a_fit_costs_the_fits_before_it_nothing(
    tmp_path: Path, folded: Folded, failing: dict[int, object], kept: int
) -> None:
    result, fit = folded
    times = itertools.count(1)

    def load(one: Candidate) -> LoadedModel:
        match failing.get(next(times)):
            case None:
                return zoo.load(one)
            case Exception() as error:
                raise error
            case other:
                return other(one)

    made = fit(load=load)
    assert made == replace(result, test=made.test, cost=made.cost, on_all_labels=True, averaged_fits=kept)
    said = load_trial(tmp_path, made).test_logits
    assert made.test == (said.argmax(axis=1) == digits().labels[np.sort(digits().test)]).mean()


def test_the_first_fit_fails_aloud_and_so_does_what_is_no_lack_of_memory(tmp_path: Path, folded: Folded) -> None:
    result, fit = folded
    with pytest.raises(TrialDiverged):
        fit(load=diverging)
    times = itertools.count(1)

    def broken(one: Candidate) -> LoadedModel:
        if next(times) == MEAN:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return zoo.load(one)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit(load=broken)
    assert load_trial(tmp_path, result).visual is not None  # as it was


def test_zero_epochs_are_zero_shot(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    tuned = run(tmp_path, candidate, store, spec(epochs=0))
    probed = run(tmp_path, candidate, store, spec(method="zero_shot", settings={}, epochs=0))
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
    assert re.match(r"the time budget ended (after|in epoch) \d+ of 100000", result.reason)
    assert result.validation is not None
    over = run(tmp_path, candidate, store, spec(), deadline=time.monotonic() - 1)
    assert over.state == "pruned"
    assert over.curve == ()
    head = run(tmp_path, candidate, store, spec(method="probe", settings={}, epochs=0), deadline=time.monotonic() - 1)
    assert head.reason == "the time budget ended before it had learned"


def test_an_epoch_that_time_cut_short_is_said_and_counted_as_a_part(
    tmp_path: Path, candidate: Candidate, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = len(digits().train)
    steps = math.ceil(images / batch_size(images, torch.device("cpu")))
    assert steps > 2
    asked = iter(range(steps * 4))

    def passed(_: Deadline, *, reserve: float = 0.0) -> bool:
        return reserve > 0 and next(asked) == steps + 1  # training asks after each step: the second of epoch 2

    monkeypatch.setattr(Deadline, "passed", passed)
    result = run(tmp_path, candidate, store, spec(epochs=4))
    assert (result.epochs_run, result.out_of_time) == (2, True)
    assert result.reason == "the time budget ended in epoch 2 of 4"
    assert result.fidelity == pytest.approx((steps + 2) / (4 * steps))


def test_divergence(tmp_path: Path, candidate: Candidate, store: Store) -> None:
    with pytest.raises(TrialDiverged, match="lower the learning rate"):
        run(tmp_path, candidate, store, spec(learning_rate=1e30, epochs=2))
