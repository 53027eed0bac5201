"""QUESTION: What do source profiles cost beside a screening, and how many labels of a source task does a ranking need?

PAGE: docs/results/library.md
RESULT: none

    python -m benchmarks.screening.source_profiles                       # about 6 minutes
    python -m benchmarks.screening.source_profiles --labels-only

Costs: random weights of ViT-B-32 and random pictures; a screening embeds 160 images, a source task is 32 images.
Labels: the mini zoo, each of its source tasks left out in turn, 16 labels a class on it; the fused ranking's weights
are learned from evidence of fewer labels a class on the other tasks, which is all that a pack of few images gives.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.screening.real_costs import write_images, write_model
from vlmsel_auto.bench.case import Case
from vlmsel_auto.cache import Store
from vlmsel_auto.library.places import default_library
from vlmsel_auto.measuring.measure import PROFILE_IMAGES, embed_target
from vlmsel_auto.measuring.source_cells import measure_source
from vlmsel_auto.models import zoo
from vlmsel_auto.ranking.agreement import ndcg, top_k_loss
from vlmsel_auto.ranking.scores import score_candidates
from vlmsel_auto.ranking.signals import LABEL_SIGNALS
from vlmsel_auto.ranking.sources import image_signals
from vlmsel_auto.tasks.task import TaskOptions, load_task

CLASSES = (10, 100, 397)  # of a source task, with 4 templates
SHOTS = 16


def costs() -> None:
    """Print seconds of processor time of a screening and of source profiles."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "model").mkdir()
        model = zoo.load(write_model("ViT-B-32", root / "model"), device="cpu")
        task = load_task(write_images(root / "task"), TaskOptions(shots=20), workdir=root / "work")
        task.pixels.prepare(model.candidate.view, task.support)
        began = time.process_time()
        embed_target(model, task, store=Store(root / "store"))
        print(f"look at ViT-B-32, {len(task.support)} images: {time.process_time() - began:.1f} s", flush=True)
        few = task.train[:PROFILE_IMAGES]
        for count in CLASSES:
            names = tuple(f"class {k}" for k in range(count))
            source = replace(
                task, name=f"{count} classes", classes=names, prompts=names, templates=task.templates[:4], train=few,
                digest=f"{count}",
            )  # fmt: skip
            began = time.process_time()
            measure_source(model, source, store=Store(root / "store"))
            print(f"source task of {len(few)} images, {count} classes: {time.process_time() - began:.1f} s", flush=True)


def labels() -> None:
    """Print what rankings are worth by the number of labels a class of the sources' evidence."""
    library = default_library()
    for shots in (*sorted(library.shots, reverse=True), 0):
        found = []
        for column in range(len(library.tasks)):
            case = Case(library=library, column=column, truth="tuned", shots=SHOTS)
            sources = case.gathered(shots=shots)
            shown = {name: case.signal(name) for name in image_signals(case.truth)}
            images = {name: values for name, values in shown.items() if values is not None}
            evidence = {name: case.evidence(name) for name in LABEL_SIGNALS}
            for draw in range(max(len(values) for values in evidence.values())):
                own = {name: values[draw] for name, values in evidence.items() if draw < len(values)}
                scores = score_candidates(measured=images | own, sources=sources, n=len(case.rows))
                found += [(ndcg(scores.score, one), 100 * top_k_loss(scores.score, one, k=1)) for one in case.truths]
        value, loss = np.mean(found, axis=0)
        print(f"{shots} labels a class on the sources: NDCG@5 {value:.3f}, loss of the first {loss:.2f} points")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels-only", action="store_true", help="only how many labels are needed")
    if not parser.parse_args().labels_only:
        costs()
    labels()
