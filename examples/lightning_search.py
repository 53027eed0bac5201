"""A training loop of one's own, asked and told, with Lightning: python examples/lightning_search.py FOLDER TRIALS.

No study and no tuner: the search says which candidate comes next, and whether its training should end early.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import vlmsel_auto
from vlmsel_auto import candidates
from vlmsel_auto.cache import Store
from vlmsel_auto.integrations.candidate_search import CandidatePrior, CandidateSearch
from vlmsel_auto.integrations.lightning_report import ReportValidation
from vlmsel_auto.models import zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.tasks.task import TaskOptions, load_task

NAMES = ["RN-Mi-64.glyph-s", "EffNet-Mi-64.all-m", "ViT-Mi-8-64.all-l"]
Batch = list[torch.Tensor]


class Head(LightningModule):
    """A linear classifier of embeddings."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, classes)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Cross-entropy of a batch."""
        del batch_idx
        return functional.cross_entropy(self.linear(batch[0]), batch[1])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the accuracy."""
        del batch_idx
        self.log("accuracy", (self.linear(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.02)


def loaders(candidate: Candidate, task: Task, store: Store) -> list[DataLoader[tuple[torch.Tensor, ...]]]:
    """Training and validation images as embeddings of the candidate."""
    everything = np.concatenate([task.train, task.val])
    found = embed(candidate, task, everything, load=lambda: zoo.load(candidate), store=store)
    images = functional.normalize(torch.tensor(found.images), dim=-1)
    data = TensorDataset(images, torch.tensor(task.labels[everything]))
    parts = [range(len(task.train)), range(len(task.train), len(everything))]
    return [DataLoader(torch.utils.data.Subset(data, part), batch_size=32) for part in parts]


def main(folder: str, n_trials: int) -> None:
    """Ask, train, tell."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    chosen = {one.id: one for one in candidates.resolve(NAMES)}
    ranking = vlmsel_auto.rank(folder, candidates=NAMES)
    search = CandidateSearch(CandidatePrior.of(ranking, candidates=list(chosen.values())))
    best = "", 0.0
    with tempfile.TemporaryDirectory() as scratch:
        views = list({one.view for one in chosen.values()})
        task = load_task(Path(folder), TaskOptions(needs_val=True), views=views, workdir=Path(scratch))
        for _ in range(n_trials):
            if search.should_stop():
                break
            params = search.ask()
            name = str(params["candidate"])
            train, val = loaders(chosen[name], task, Store(Path(scratch)))
            report = ReportValidation.to_search(search, params, monitor="accuracy")
            trainer = Trainer(max_epochs=8, callbacks=[report], logger=False, enable_checkpointing=False,
                              enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")  # fmt: skip
            trainer.fit(Head(train.dataset[0][0].shape[0], task.n_classes), train, val)
            search.tell(params, None if report.is_pruned else report.value)
            print(f"{name}: {report.value}{' (pruned)' if report.is_pruned else ''}")
            best = max(best, (name, report.value or 0.0), key=lambda each: each[1])
    print(f"best: {best[0]}, validation {best[1]:.3f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
