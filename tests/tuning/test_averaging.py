"""Mean weights of several fits: what they are, and when they are kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.study_world import candidates, digits_folder, task
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.loadedmodel import class_logits
from vlmsel_auto.records import Candidate, Task, TrialSpec
from vlmsel_auto.tuning import finetune
from vlmsel_auto.tuning.averaging import average, averaged
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.work import Deadline, MethodOutcome, Work, never

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
    torch.testing.assert_close(found.visual["proj"], (fits[0].visual["proj"] + fits[1].visual["proj"]) / 2)
    assert found.visual["seen"] == 3
    assert found.held_out_logits is None
    with pytest.raises(ValueError, match="0 towers of 0 fits"):
        average([])
    with pytest.raises(ValueError, match="1 towers of 2 fits"):
        average([fits[0], replace(fits[1], visual=None)])


Fit = tuple[Work, MethodOutcome]


@pytest.fixture(scope="module")
def fit(task: Task, candidates: tuple[Candidate, ...], tmp_path_factory: pytest.TempPathFactory) -> Fit:
    workdir = tmp_path_factory.mktemp("fit")
    spec = TrialSpec(
        candidate=candidates[0].id, method="finetune", epochs=2, seed=0,
        settings={"learning_rate": 1e-4, "weight_decay": 0.05, "label_smoothing": 0.05, "augmentation": 0.2},
    )  # fmt: skip
    work = Work(
        spec=spec, task=task, candidate=candidates[0], splits=splits(task), load=zoo.load,
        store=Store(workdir / "store"), hook=never, deadline=Deadline(), workdir=workdir, device=torch.device("cpu"),
    )  # fmt: skip
    return work, finetune.run(work)


def mean_of(fit: Fit, *others: Checkpoint, least: float | None = None, **changes: object) -> Checkpoint | None:
    """The mean of the fit and others; at least as good as the fit, where nothing else is said."""
    work, outcome = fit
    least = outcome.validation.metric if least is None else least
    arguments = {"task": work.task, "candidate": work.candidate, "load": work.load, "known": work.splits.val}
    return averaged([outcome.checkpoint, *others], least=least, **{**arguments, **changes})


def test_a_fit_averaged_with_itself_is_that_fit(fit: Fit) -> None:
    work, outcome = fit
    found = mean_of(fit, outcome.checkpoint)
    np.testing.assert_allclose(found.test_logits, outcome.checkpoint.test_logits, atol=1e-4)
    assert found.held_out_logits is None
    assert mean_of(fit, outcome.checkpoint, least=outcome.validation.metric + 0.01) is None
    untested = mean_of(fit, outcome.checkpoint, task=replace(work.task, test=work.task.test[:0]))
    assert untested.test_logits is None


def test_fits_that_ended_far_apart_are_not_averaged(fit: Fit) -> None:
    of = fit[1].checkpoint
    assert mean_of(fit, replace(of, weight=-of.weight, bias=of.bias[::-1].copy())) is None


def test_a_mean_that_is_not_finite_is_not_kept(fit: Fit) -> None:
    of = fit[1].checkpoint
    assert mean_of(fit, replace(of, bias=np.full_like(of.bias, np.nan)), least=0.0) is None
