"""An ONNX file, run by onnxruntime, beside the model that it came from: do both say the same of images?"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from vlmsel_auto.errors import TaskError
from vlmsel_auto.events import Sink, StageFinished, StageProgress, StageStarted
from vlmsel_auto.models.exported import ExportedModel
from vlmsel_auto.models.prediction import image_files, judge, read_batches, stack
from vlmsel_auto.records import UNLABELLED, FloatArray
from vlmsel_auto.tasks.file_names import nfc

_BATCH: Final = 64
_NOISE: Final = 16  # images that the file is checked on where none are given


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxCheck:
    """The file, run by onnxruntime, beside the model that it came from, run by torch."""

    images: int
    largest_difference: float  # of a probability
    same_class: int  # images that both put into the same class
    labelled: int = 0  # images that lie in a folder of a class's name
    model_right: int = 0  # of those, by the model
    file_right: int = 0  # likewise, by the file


def compare(file: Path, model: ExportedModel, images: Sequence[Path], *, sink: Sink) -> OnnxCheck:
    """Run file and model on the images, or on noise; ``sink`` takes the events of a stage "export" of its own.

    Raises:
        TaskError: not one of the images is usable.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # nothing is sent anywhere; read when it is imported
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def check(pixels: Sequence[NDArray[np.uint8]], labels: Sequence[int]) -> OnnxCheck:
        (found,) = session.run(["probabilities"], dict(zip(names, pixels, strict=True)))
        return _check(judge(model, pixels)[0], np.asarray(found, dtype=np.float64), labels)

    if not images:
        rng = np.random.default_rng(0)
        noise = [rng.integers(0, 256, (_NOISE, view.size, view.size, 3), dtype=np.uint8) for view in model.views]
        return check(noise, [UNLABELLED] * _NOISE)
    began, total = time.monotonic(), sum(1 for _ in image_files(images))
    sink(StageStarted(stage="export", total=total, text="compare the file with the model"))
    place = {name: index for index, name in enumerate(model.classes)}
    done, checks = 0, []
    for batch in read_batches(image_files(images), views=model.views, size=_BATCH):
        usable = [each for each in batch if each.pixels is not None]
        if usable:
            labels = [place.get(nfc(each.path.parent.name), UNLABELLED) for each in usable]
            checks.append(check(stack(usable), labels))
        done += len(batch)
        sink(StageProgress(stage="export", done=done))
    sink(StageFinished(stage="export", seconds=time.monotonic() - began))
    if not checks:
        raise TaskError(f"At least one usable image is needed, but got {[str(each) for each in images]!r}")
    return _together(checks)


def _together(checks: Sequence[OnnxCheck]) -> OnnxCheck:
    """What all batches say; one NaN is the largest difference."""
    return OnnxCheck(
        images=sum(each.images for each in checks),
        largest_difference=float(np.max([each.largest_difference for each in checks])),
        same_class=sum(each.same_class for each in checks),
        labelled=sum(each.labelled for each in checks),
        model_right=sum(each.model_right for each in checks),
        file_right=sum(each.file_right for each in checks),
    )


def _check(ours: FloatArray, theirs: FloatArray, labels: Sequence[int]) -> OnnxCheck:
    """Compare probabilities (n, K) of n images with labels (n,)."""
    true, said, found = np.asarray(labels), ours.argmax(axis=1), theirs.argmax(axis=1)
    return OnnxCheck(
        images=len(true),
        largest_difference=float(np.abs(ours - theirs).max()),
        same_class=int((said == found).sum()),
        labelled=int((true != UNLABELLED).sum()),
        model_right=int((said == true).sum()),
        file_right=int((found == true).sum()),
    )
