"""QUESTION: What does an exported model cost to use?

PAGE: docs/results/speed.md
RESULT: benchmarks/results/serving.json

    python -m benchmarks.search.serving TASK --write benchmarks/results/serving.json

TASK is a folder of {train,test}/CLASS/*. One member of each mini-zoo architecture gets a head from the mean embeddings
of the training images. Its weights are multiplied by 1.01, as if tuned: those that ship are exact in half precision. It
is exported and written as ONNX with weights in single and in half precision, and the files are compared with the model
on the test images. Hard links to these images are predicted by the command line, 1,000 and 20,000 of them, to CSV and
to Parquet: seconds and the largest memory of the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch.nn.functional import normalize

from benchmarks.common import command_line, write_json
from vlmsel_auto.cache import Json
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.exporting import Classifier, export
from vlmsel_auto.models.onnxfile import export_onnx
from vlmsel_auto.models.prediction import read_batches, stack

QUICK: Final = "EffNet-Mi-64.all-m"
MODELS: Final = (
    "ViT-Mi-16-64.all-m",
    "ViT-GAP-8-64.all-l",
    "ViT-Deep-8-48.all-m",
    "ConvNeXt-Mi-64.all-m",
    QUICK,
    "RN-Mi-64.all-m",
)
COUNTS: Final = (1_000, 20_000)
SCALE: Final = 20.0


def export_nearest_mean(name: str, task: Path, folder: Path) -> Path:
    """Export a member with the mean embedding of each class's training images as its head."""
    model = zoo.load(resolve(name)[0])
    classes = sorted(each.name for each in (task / "train").iterdir())
    rows = []
    with torch.no_grad():
        for weight in model.model.parameters():
            weight.mul_(1.01)
        for each in classes:
            files = sorted((task / "train" / each).iterdir())
            (batch,) = read_batches(files, views=[model.candidate.view], size=len(files))
            rows.append(normalize(model.embed(model.normalise(stack(batch)[0])), dim=1).mean(dim=0).numpy())
    classifier = Classifier(
        head=np.stack(rows).astype(np.float32),
        bias=np.zeros(len(classes), dtype=np.float32),
        scale=SCALE,
        classes=tuple(classes),
        prompts=tuple(classes),
        templates=("a {}.",),
    )
    return export(model, classifier, directory=folder)


def onnx_row(name: str, model_dir: Path, task: Path, scratch: Path) -> dict[str, Json]:
    """Sizes and differences of the files of one model."""
    row: dict[str, Json] = {"model": name}
    for half in (False, True):
        began = time.monotonic()
        made = export_onnx(model_dir, scratch / "model.onnx", half=half, images=[task / "test"])
        kind, check = "half" if half else "single", made.check
        row |= {
            "images": check.images,
            "accuracy_model": check.model_right / check.labelled,
            f"accuracy_{kind}": check.file_right / check.labelled,
            f"difference_{kind}": check.largest_difference,
            f"bytes_{kind}": made.bytes,
            f"seconds_{kind}": round(time.monotonic() - began, 1),
        }
    return row


def predict_row(model_dir: Path, images: Path, output: Path) -> dict[str, Json]:
    """Seconds and largest memory, MiB, of one call of the command line."""
    command = [sys.executable, "-m", "vlmsel_auto", "predict", str(model_dir), str(images), "-o", str(output), "-q"]
    began = time.monotonic()
    child = subprocess.Popen(command)  # noqa: S603 - our own command line
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return {
        "images": sum(1 for _ in images.rglob("*.*")),
        "kind": output.suffix[1:],
        "seconds": round(time.monotonic() - began, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
        "file_bytes": output.stat().st_size,
    }


def linked(sources: list[Path], count: int, root: Path) -> Path:
    """A folder of ``count`` hard links to images, 1,000 a subfolder."""
    for k in range(count):
        target = root / f"{k // 1000:03d}" / f"{k:06d}{sources[0].suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(sources[k % len(sources)], target)
    return root


def main() -> None:
    """Measure, print and write."""
    parser = command_line(__doc__)
    parser.add_argument("task", type=Path)
    parser.add_argument("--models", default=",".join(MODELS), help="comma list of mini-zoo members")
    given = parser.parse_args()
    rows: list[Json] = []
    calls: list[Json] = []
    with tempfile.TemporaryDirectory(dir=given.task.parent) as folder:
        scratch = Path(folder)
        sources = sorted(each for each in (given.task / "test").rglob("*.*") if each.is_file())
        quick = export_nearest_mean(QUICK, given.task, scratch / "quick")
        for count in COUNTS:
            images = linked(sources, count, scratch / f"links-{count}")
            for suffix in (".csv", ".parquet"):
                calls.append(predict_row(quick, images, scratch / f"out{suffix}"))
                print(calls[-1], flush=True)
        for name in given.models.split(","):
            model_dir = export_nearest_mean(name, given.task, scratch / name)
            rows.append(onnx_row(name, model_dir, given.task, scratch))
            print(rows[-1], flush=True)
    result = {"task": given.task.name, "threads": os.environ.get("OMP_NUM_THREADS"), "onnx": rows, "predict": calls}
    write_json(given.write, result)


if __name__ == "__main__":
    main()
