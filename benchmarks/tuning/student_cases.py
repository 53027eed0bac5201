"""Targets with unlabelled images, and the pools on them, for `students`.

A target has up to ``shots`` labelled images a class, unlabelled ones and test images of one task, all of rows that no
candidate was trained on: test rows, or all rows of tasks in nobody's pretraining. Beside it stand views of its labelled
images as a tower sees them in training, and images of other tasks.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.common import folders
from benchmarks.tuning.fresh_targets import UNSEEN, far_candidates
from vlmsel_auto.cache import Store
from vlmsel_auto.events import discard
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.models.loadedmodel import class_logits
from vlmsel_auto.models.pooling import log_probabilities
from vlmsel_auto.pipeline.ensemble import Pool, pool_leaders
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.records import Candidate, FloatArray, IntArray, Task, TrialResult
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning.augment import augment
from vlmsel_auto.tuning.checkpoints import Checkpoint, load_trial
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.runner import Trial, TrialRunner

CANDIDATES, TOWERS = 8, 4
SIZE = 8  # heads and towers of a pool, as the product's
SHOTS = 16  # rows that no other part has, also where fewer are labelled
MOST, TESTED = 40, 240  # unlabelled images a class; test images in all
VIEWS, STRENGTH = 3, 0.4
STRANGE = 0.6  # of the images of a mixed heap


def write_target(source: Path, out: Path, *, others: Sequence[Path], shots: int) -> None:
    """The folders target (train, test), heap, others and views, the last three with train alone."""
    told = json.loads((source / "task.json").read_text("utf-8"))
    names = [str(each).replace("/", "_") for each in told["classes"]]
    every = source.name in UNSEEN.split(",")
    heap = 0
    for label, name in enumerate(names):
        rows = shuffled([image for of, image in images_of(source, every=every) if of == label], seed=label)
        kept, rest = rows[:shots], rows[SHOTS:]
        unlabelled = rest[: min(MOST, len(rest) // 2)]
        tested = rest[len(unlabelled) :][: TESTED // len(names)]
        heap += len(unlabelled)
        for part, images in (("target/train", kept), ("target/test", tested), ("heap/train", unlabelled)):
            write_images(out / part / name, images)
        write_images(out / "views" / "train" / name, [seen for image in kept for seen in views_of(image)])
    strange = shuffled([image for each in others for _, image in images_of(each, every=False)], seed=0)
    for label, name in enumerate(names):
        write_images(out / "others" / "train" / name, strange[: round(STRANGE * heap)][label :: len(names)])
    (out / "target" / "task.toml").write_text(f"domain = {json.dumps(told.get('domain', source.name))}\n", "utf-8")


def images_of(source: Path, *, every: bool) -> list[tuple[int, bytes]]:
    """Class and encoded image of each test row, or of every row."""
    table = pyarrow.parquet.read_table(source / "images.parquet").to_pydict()
    there = zip(table["split"], table["label"], table["image"], strict=True)
    return [
        (of, each["bytes"] if isinstance(each, dict) else each) for part, of, each in there if every or part == "test"
    ]


def shuffled(images: Sequence[bytes], *, seed: int) -> list[bytes]:
    """In an order drawn by chance."""
    return [images[place] for place in np.random.default_rng(seed).permutation(len(images))]


def write_images(folder: Path, images: Sequence[bytes]) -> None:
    """One file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, image in enumerate(images):
        (folder / f"{place:04d}.png").write_bytes(image)


def views_of(image: bytes) -> list[bytes]:
    """An image as a tower sees it while it is trained, some times."""
    with Image.open(io.BytesIO(image)) as opened:
        pixels = torch.from_numpy(np.array(opened.convert("RGB")))[None]
    seed = int(pixels.sum())
    made = []
    for place in range(VIEWS):
        changed = augment(pixels, strength=STRENGTH, generator=torch.Generator().manual_seed(seed + place))[0]
        stream = io.BytesIO()
        Image.fromarray(changed.numpy()).save(stream, "png")
        made.append(stream.getvalue())
    return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A target with its other images, and who makes models of it. K classes."""

    task: Task
    heaps: Mapping[str, Task]  # heap, others, views
    runner: TrialRunner

    def features(self, candidate: Candidate, task: Task, rows: IntArray) -> torch.Tensor:
        """Unit-norm embeddings (n, D)."""
        found = embed(candidate, task, rows, load=lambda: zoo.load(candidate), store=self.runner.store)
        return functional.normalize(torch.tensor(found.images), dim=-1)

    @torch.inference_mode()
    def logs(self, kept: Checkpoint, candidate: Candidate, task: Task, rows: IntArray) -> FloatArray:
        """Log-probabilities (n, K) by a head or a tower."""
        if kept.visual is None:
            embedded = self.features(candidate, task, rows)
        else:
            model = zoo.load(candidate, text=False)
            model.visual.load_state_dict(dict(kept.visual))
            parts = np.array_split(rows, math.ceil(len(rows) / 64))
            embedded = torch.cat(
                [model.embed(model.normalise(task.pixels.read(candidate.view, each))).float() for each in parts]
            )
        weight, bias = torch.from_numpy(kept.weight), torch.from_numpy(kept.bias)
        return log_probabilities(class_logits(embedded, head=weight, bias=bias, scale=kept.scale).numpy())


def opened(source: Path, scratch: Path, *, far: bool, shots: int) -> Case:
    """The case, its folders being written where they are not there yet."""
    if not (scratch / "target" / "task.toml").exists():
        others = [each for each in folders(source.parent) if each != source][::4]
        write_target(source, scratch, others=others, shots=shots)
    known = far_candidates(source.name)
    pool_of = known if far else [each for each in mini_zoo() if each not in known]
    pool_of = [pool_of[place] for place in np.random.default_rng(0).permutation(len(pool_of))[:CANDIDATES]]
    views = tuple(dict.fromkeys(each.view for each in pool_of))

    def read(name: str, **options: bool) -> Task:
        return load_task(scratch / name, TaskOptions(**options), views=views, workdir=scratch / "work" / name)  # type: ignore[arg-type] # flags alone

    task = read("target", needs_val=True)
    heaps = {name: read(name, draw_test=False) for name in ("heap", "others", "views")}
    runner = TrialRunner(
        task=task, candidates=pool_of, load=zoo.load, store=Store(scratch / "embeddings"), workdir=scratch / "work",
    )  # fmt: skip
    return Case(task=task, heaps=heaps, runner=runner)


def tuned_pool(case: Case) -> tuple[list[TrialResult], Pool | None]:
    """Heads of all candidates and towers of the first ones, best head first; and the product's pool of them."""
    runner, heads, towers = case.runner, [], []
    for number, name in enumerate(runner.table):
        heads.append(runner.run(Trial(number=number, spec=runner.spec("probe", name, DEFAULT))))
    heads.sort(key=lambda each: loss_of(each, case))
    for place, head in enumerate(heads[:TOWERS]):
        spec = runner.spec("finetune", head.spec.candidate, DEFAULT, fold=place % runner.folds)
        towers.append(runner.run(Trial(number=100 + place, spec=spec)))
    members = [each for pair in zip(heads, towers, strict=False) for each in pair] + heads[TOWERS:]
    found = pool_leaders(members, size=SIZE, results=members, task=case.task, workdir=runner.workdir, sink=discard)
    return members, found


def loss_of(trial: TrialResult, case: Case) -> float:
    """Log loss of a head on images that it has not seen."""
    said = load_trial(case.runner.workdir, trial).held_out_logits
    assert said is not None  # noqa: S101 - a head has them
    rows = splits(case.task).held_out
    return -float(log_probabilities(said)[np.arange(len(rows)), case.task.labels[rows]].mean())
