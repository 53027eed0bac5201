"""Mean weights of several fits: what they are, when they are kept, and when one more fit is worth its time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.study_world import candidates, digits_folder, task
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.loadedmodel import class_logits
from vlmsel_auto.records import Candidate, Task, TrialSpec
from vlmsel_auto.tuning import finetune
from vlmsel_auto.tuning.averaging import MOST_FITS, average, averaged, worth_another
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.work import Deadline, Outcome, Work, never

__all__ = ["candidates", "digits_folder", "task"]  # fixtures


def checkpoint(seed: int, *, scale: float) -> Checkpoint:
    draw = torch.Generator().manual_seed(seed)
    return Checkpoint(
        visual={"proj": torch.randn(4, 3, generator=draw), "seen": torch.tensor(seed)},
        weight=torch.randn(5, 3, generator=draw).numpy(),
        bias=torch.randn(5, generator=draw).numpy(),
        scale=scale,
        held_out_logits=np.zeros((2, 5), dtype=np.float32),
    )


def logits(of: Checkpoint, embeddings: torch.Tensor) -> torch.Tensor:
    return class_logits(embeddings, head=torch.from_numpy(of.weight), bias=torch.from_numpy(of.bias), scale=of.scale)


def test_the_mean_head_says_the_mean_of_what_the_heads_say_whatever_their_scales() -> None:
    fits = [checkpoint(seed, scale=scale) for seed, scale in enumerate((1.0, 20.0, 3.0))]
    shown = torch.randn(7, 3, generator=torch.Generator().manual_seed(9))
    of_all = torch.stack([logits(each, shown) for each in fits]).mean(dim=0)
    torch.testing.assert_close(logits(average(fits), shown), of_all, atol=1e-5, rtol=1e-5)


def test_towers_are_averaged_weight_by_weight_and_counters_are_not() -> None:
    fits = [checkpoint(seed, scale=1.0) for seed in (3, 4)]
    found = average(fits)
    assert found.visual is not None
    torch.testing.assert_close(found.visual["proj"], (fits[0].visual["proj"] + fits[1].visual["proj"]) / 2)
    assert found.visual["seen"] == 3
    assert found.held_out_logits is None
    with pytest.raises(ValueError, match="0 towers of 0 fits"):
        average([])
    with pytest.raises(ValueError, match="1 towers of 2 fits"):
        average([fits[0], replace(fits[1], visual=None)])


@given(fits=st.integers(1, MOST_FITS + 2), seconds=st.floats(0, 1e5), price=st.floats(0, 1), more=st.floats(1.1, 10))
def test_one_more_fit_is_worth_less_the_more_there_are_and_the_longer_it_takes(
    fits: int, seconds: float, price: float, more: float
) -> None:
    if worth_another(fits + 1, seconds=seconds, price=price):
        assert worth_another(fits, seconds=seconds, price=price)
    if worth_another(fits, seconds=seconds * more, price=price):
        assert worth_another(fits, seconds=seconds, price=price)
    assert worth_another(fits, seconds=seconds, price=0.0) == (fits < MOST_FITS)
    assert not worth_another(fits, seconds=3_600, price=0.001)  # an hour for a point is too dear


@pytest.fixture
def work(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> Work:
    spec = TrialSpec(
        candidate=candidates[0].id, method="finetune",
        settings={"learning_rate": 1e-4, "weight_decay": 0.05, "label_smoothing": 0.05, "augmentation": 0.2}, epochs=2,
        seed=0,
    )  # fmt: skip
    return Work(
        spec=spec, task=task, candidate=candidates[0], splits=splits(task), load=zoo.load,
        store=Store(tmp_path / "store"), hook=never, deadline=Deadline(), workdir=tmp_path, device=torch.device("cpu"),
    )  # fmt: skip


def test_a_fit_averaged_with_itself_is_that_fit(work: Work) -> None:
    fit = finetune.run(work)
    found = averaged([fit, fit], work)
    assert found.checkpoint is not None
    assert fit.checkpoint is not None
    np.testing.assert_allclose(found.checkpoint.test_logits, fit.checkpoint.test_logits, atol=1e-4)
    assert (found.test, found.validation.metric) == (fit.test, fit.validation.metric)


def test_fits_that_ended_far_apart_are_not_averaged(work: Work) -> None:
    fit = finetune.run(work)

    def mirrored(outcome: Outcome) -> Outcome:
        assert outcome.checkpoint is not None
        of = outcome.checkpoint
        return replace(outcome, checkpoint=replace(of, weight=-of.weight, bias=of.bias[::-1].copy()))

    assert averaged([fit, mirrored(fit)], work) is fit


def test_a_mean_that_is_not_finite_is_not_kept(work: Work) -> None:
    fit = finetune.run(work)
    assert fit.checkpoint is not None
    broken = replace(
        fit,
        checkpoint=replace(fit.checkpoint, bias=np.full_like(fit.checkpoint.bias, np.nan)),
        validation=replace(fit.validation, metric=0.0),  # as little as such a mean reaches, at least
    )
    assert averaged([fit, broken], work) is fit
