"""QUESTION: What do real model sizes cost on this machine?

PAGE: docs/results/real-models.md
RESULT: benchmarks/results/real-costs.json

    python -m benchmarks.screening.real_costs --write benchmarks/results/real-costs.json
    python -m benchmarks.screening.real_costs --quick

Weights are random, written in a temporary folder as open_clip writes them, since only time and memory count. A look
embeds 160 images of 512 pixels (random noise) and 8 class names in 7 templates. `--loads N` loads and releases the
first architecture N times and prints the resident memory after each tenth.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import open_clip
import psutil
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.common import command_line
from vlmsel_auto.cache import Store
from vlmsel_auto.measuring.measure import embed_target
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.process import release_memory
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning.methods import method_of
from vlmsel_auto.tuning.runner import Trial, TrialRunner

ARCHITECTURES = ("ViT-B-32", "ViT-B-16", "ViT-L-14")
CLASSES, SHOTS = 8, 20  # 160 images
TEMPLATES = ("a photo of a {}.", "a blurry photo of a {}.", "a {}.", "a drawing of a {}.", "one {}.", "art of a {}.",
             "a small {}.")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds of one architecture."""

    architecture: str
    gigabytes: float  # of weights on disk
    load: float
    look: float  # embedding the images and the class names, the model being there
    head: float | None  # logistic regression on the features, images of the trial being embedded
    epoch: float | None  # one epoch of fine-tuning the whole visual tower on 96 images, its validation included
    peak: float  # GB of resident memory since the process began


def write_model(arch: str, folder: Path) -> Candidate:
    """A folder of the architecture with random weights."""
    model = open_clip.create_model(arch, pretrained=None)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()},
              str(folder / "open_clip_model.safetensors"))  # fmt: skip
    preprocess = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)}
    config = {"model_cfg": open_clip.get_model_config(arch), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return resolve(f"local-dir:{folder}")[0]


def write_images(folder: Path) -> Path:
    """Random pictures, which cost as much as any."""
    rng = np.random.default_rng(0)
    for split, count in (("train", SHOTS), ("val", 2), ("test", 1)):
        for k in range(CLASSES):
            place = folder / split / f"class {k}"
            place.mkdir(parents=True)
            for n in range(count):
                pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((512, 512)).save(place / f"{n}.jpg")
    lines = ", ".join(json.dumps(each) for each in TEMPLATES)
    (folder / "task.toml").write_text(f"templates = [{lines}]\n")
    return folder


def cost(arch: str, *, folder: Path, images: Path, trials: bool) -> Cost:
    """Time one architecture; head and epoch of those below a gigabyte only."""
    place = folder / arch
    place.mkdir()
    candidate = write_model(arch, place)
    task = load_task(images, TaskOptions(shots=SHOTS), views=(candidate.view,), workdir=folder / f"work-{arch}")
    gc.collect()
    began = time.perf_counter()
    model = zoo.load(candidate)
    loaded = time.perf_counter()
    embed_target(model, task, store=Store(folder / f"store-{arch}"))
    screened = time.perf_counter()
    del model
    gc.collect()
    size = sum(file.stat().st_size for file in place.iterdir()) / 1e9
    trials = trials and size < 1
    head = _trial("probe", candidate, task, folder=folder, epochs=0) if trials else None
    epoch = _trial("finetune", candidate, task, folder=folder, epochs=1) if trials else None
    for file in place.iterdir():
        file.unlink()
    return Cost(
        architecture=arch, gigabytes=size, load=loaded - began, look=screened - loaded, head=head, epoch=epoch,
        peak=psutil.Process().memory_info().rss / 1e9,
    )  # fmt: skip


def _trial(method: str, candidate: Candidate, task: Task, *, folder: Path, epochs: int) -> float:
    """Seconds of a trial on 96 training images."""
    space = method_of(method).space(candidate, train_images=len(task.train), images_per_trial=2500)
    spec = replace(space.spec(DEFAULT, candidate=candidate.id, seed=0), epochs=epochs)
    began = time.perf_counter()
    runner = TrialRunner(
        task=task, candidates=[candidate], load=zoo.load, store=Store(folder / f"store-{candidate.arch}"),
        workdir=folder / f"{candidate.arch}-{method}", train_shots=12,
    )  # fmt: skip
    runner.run(Trial(number=0, spec=spec))
    return time.perf_counter() - began


def memory(arch: str, *, folder: Path, loads: int) -> list[float]:
    """Resident GB after each tenth load and release."""
    place = folder / "memory"
    place.mkdir()
    candidate = write_model(arch, place)
    gc.collect()
    found = []
    for number in range(1, loads + 1):
        model = zoo.load(candidate)
        del model
        release_memory()
        if number == 1 or number % 10 == 0:
            found.append(psutil.Process().memory_info().rss / 1e9)
    return found


def main() -> None:
    """Print the tables; write them as JSON where asked."""
    parser = command_line(__doc__, quick="screenings of the first architecture, five loads")
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES), help="of open_clip, by commas")
    parser.add_argument("--loads", type=int, default=50)
    options = parser.parse_args()
    names: Sequence[str] = options.architectures.split(",")
    found: list[Cost] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        resident = memory(names[0], folder=folder, loads=5 if options.quick else options.loads)
        print("resident GB after load 1, 10, 20, ...:", " ".join(f"{each:.2f}" for each in resident))
        images = write_images(folder / "images")
        print(f"{'architecture':>14} {'GB':>5} {'load':>6} {'look':>7} {'head':>6} {'epoch':>7} {'RSS':>5}")
        for arch in names[:1] if options.quick else names:
            one = cost(arch, folder=folder, images=images, trials=not options.quick)
            found.append(one)
            told = [f"{value:.1f}" if value is not None else "-" for value in (one.load, one.look, one.head, one.epoch)]
            print(
                f"{arch:>14} {one.gigabytes:5.2f} {told[0]:>6} {told[1]:>7} {told[2]:>6} {told[3]:>7} {one.peak:5.2f}"
            )
    if options.write:
        document = {
            "costs": [asdict(one) for one in found],
            "resident_gb": resident,
            "threads": torch.get_num_threads(),
        }
        options.write.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
