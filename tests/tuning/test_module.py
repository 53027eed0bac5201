import itertools

import pytest
import torch

from vlmsel_auto.tuning.data import Measured
from vlmsel_auto.tuning.module import EpochReport, Head, Kept, _rate_factor


def test_a_missing_metric_is_an_error() -> None:
    import lightning.pytorch as pl

    from vlmsel_auto.tuning.work import Deadline

    start = Kept(measured=Measured(metric=0.0, soft=0.0, loss=0.0, images=0))
    callback = EpochReport(kept=start, hook=lambda *_: False, deadline=Deadline(), reserve=0.0, save=lambda: None)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(RuntimeError, match="'validation' was not logged"):
        callback.on_validation_end(trainer, pl.LightningModule())


def test_weight_decay_pulls_the_head_towards_its_start() -> None:
    head = Head(torch.full((2, 3), 5.0), torch.zeros(2), scale=10.0)
    optimiser = torch.optim.AdamW([head.change], lr=0.1, weight_decay=1.0)
    head.change.data += 1.0
    for _ in range(200):
        head.change.grad = torch.zeros_like(head.change)
        optimiser.step()
    assert torch.allclose(head.weight, torch.full((2, 3), 5.0), atol=1e-3)


def test_the_rate_warms_up_and_ends_at_zero() -> None:
    factors = [_rate_factor(step, steps=100) for step in range(101)]
    assert factors[:2] == [0.1, 0.2]
    assert max(factors) == 1.0
    assert factors[-1] == pytest.approx(0.0, abs=1e-12)
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[10:]))
