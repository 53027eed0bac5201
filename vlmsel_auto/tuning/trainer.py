"""Lightning's trainer as trials use it.

Lightning's habits that would reach the user stay in here: no bar, no summary, no logger, no checkpoints of its own;
Ctrl+C is a KeyboardInterrupt again, not a SystemExit; its console lines and warnings are silenced around `fit` only.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from vlmsel_auto.models.threads import Threads
from vlmsel_auto.process import handlers_kept
from vlmsel_auto.tuning.data import Batch

_CLIP = 1.0  # of the gradient's norm


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning, and turn its SystemExit back into the KeyboardInterrupt that it was."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with handlers_kept(), warnings.catch_warnings():
            # Lightning's advice to authors of training scripts (loader workers, unused devices, tips)
            warnings.filterwarnings("ignore", module=r"lightning\.")
            warnings.filterwarnings(
                "ignore", message=r".*isinstance\(treespec, LeafSpec\).*"
            )  # pytree use inside Lightning
            yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


class BatchTimes(pl.Callback):
    """Tells what batches take."""

    def __init__(self, threads: Threads) -> None:
        super().__init__()
        self._threads = threads

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """It begins."""
        del trainer, pl_module, batch, batch_idx
        self._threads.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """It is over."""
        del trainer, pl_module, outputs, batch_idx
        self._threads.done(len(batch[0]))


def make_trainer(
    *,
    epochs: int,
    callbacks: list[pl.Callback],
    device: torch.device,
    accumulate: int,
    bfloat16: bool,
    folder: Path,
) -> pl.Trainer:
    """A trainer that leaves nothing on disk and says nothing.

    Args:
        epochs: of training.
        callbacks: ours.
        device: that it trains on.
        accumulate: batches whose gradients are summed.
        bfloat16: multiply in it; weights and what is summed stay in float32.
        folder: where Lightning might write.
    """
    return pl.Trainer(
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision="bf16-mixed" if bfloat16 else "32-true",
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=_CLIP,
        callbacks=callbacks,
        plugins=[LightningEnvironment()],  # never that of a Slurm job around the search
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
