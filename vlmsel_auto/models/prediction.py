"""Class probabilities of images by an exported model, on the very pixels that its trial saw."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vlmsel_auto.errors import CandidateError, ImageError, TaskError
from vlmsel_auto.events import Sink, StageFinished, StageProgress, StageStarted, discard
from vlmsel_auto.models import candidates, pooling, zoo
from vlmsel_auto.models.ensembles import read_ensemble
from vlmsel_auto.models.exporting import Classifier, read_classifier
from vlmsel_auto.models.loadedmodel import LoadedModel, class_logits
from vlmsel_auto.records import BadFile, FloatArray, ImageView, IntArray
from vlmsel_auto.tasks.decode import quiet_pillow
from vlmsel_auto.tasks.views import read_view

_WORKERS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a model says of n images, in the order they were given (folders in sorted order)."""

    paths: tuple[Path, ...]  # (n,)
    classes: tuple[str, ...]  # (K,)
    probabilities: FloatArray  # (n, K), rows sum to 1
    bad_files: tuple[BadFile, ...]  # left out, with the reason; or converted and used

    @property
    def best(self) -> IntArray:
        """(n,) index of each image's most probable class."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def labels(self) -> tuple[str, ...]:
        """(n,) most probable class of each image."""
        return tuple(self.classes[index] for index in self.best)


def predict(
    model_dir: Path,
    images: Sequence[Path],
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 64,
    sink: Sink = discard,
) -> Predictions:
    """Classify images with an exported model, or with an exported ensemble.

    Args:
        model_dir: the exported folder.
        images: files, and folders of which every file below is taken (hidden ones are not).
        device: where to compute.
        batch_size: images at a time.
        sink: takes the events of stage "predict".

    Raises:
        CandidateError: ``model_dir`` is no export, or is damaged.
        TrialUnavailable: its weights cannot be loaded.
        TaskError: there is not one usable image.
        ValueError: ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but got {batch_size!r}")
    several = read_ensemble(model_dir)
    if several is not None:
        every = [predict(each, images, device=device, batch_size=batch_size, sink=sink) for each in several.members]
        logs = [np.log(np.maximum(each.probabilities, np.exp(pooling.LEAST_LOG))) for each in every]
        return replace(every[0], probabilities=np.exp(pooling.pool(logs, several.weights)))
    began = time.monotonic()
    classifier = read_classifier(model_dir)
    (candidate,) = candidates.resolve(model_dir)
    files = tuple(dict.fromkeys(_files(images)))
    if not files:
        raise TaskError(f"At least one image is needed, but got {[str(each) for each in images]!r}")
    model = zoo.load(candidate, device=device, text=False)
    sink(StageStarted(stage="predict", total=len(files)))
    good: list[Path] = []
    bad: list[BadFile] = []
    parts: list[FloatArray] = []
    with quiet_pillow(), ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), batch_size):
            batch = files[start : start + batch_size]
            usable = []
            for path, (pixels, note) in zip(batch, pool.map(_read, batch, repeat(candidate.view)), strict=True):
                if pixels is not None:
                    good.append(path)
                    usable.append(pixels)
                if note:
                    bad.append(BadFile(path=str(path), reason=note, used=pixels is not None))
            if usable:
                parts.append(_probabilities(model, classifier, np.stack(usable)))
            sink(StageProgress(stage="predict", done=start + len(batch)))
    if not parts:
        raise TaskError(
            f"Not one of the {len(files)} files is a usable image, but got {bad[0].path!r}: {bad[0].reason}"
        )
    sink(StageFinished(stage="predict", seconds=time.monotonic() - began))
    return Predictions(
        paths=tuple(good), classes=classifier.classes, probabilities=np.concatenate(parts), bad_files=tuple(bad)
    )


@torch.inference_mode()
def _probabilities(model: LoadedModel, classifier: Classifier, pixels: NDArray[np.uint8]) -> FloatArray:
    embeddings = model.embed(model.normalise(pixels))
    if embeddings.shape[1] != classifier.head.shape[1]:
        raise CandidateError(
            f"The head needs embeddings of width {classifier.head.shape[1]}: head and weights are of two exports, "
            f"but got width {embeddings.shape[1]}"
        )
    logits = class_logits(
        embeddings,
        head=torch.tensor(classifier.head, device=model.device),
        bias=torch.tensor(classifier.bias, device=model.device),
        scale=classifier.scale,
    )
    return np.asarray(logits.double().softmax(dim=-1).cpu().numpy(), dtype=np.float64)


def _read(path: Path, view: ImageView) -> tuple[NDArray[np.uint8] | None, str]:
    """The pixels, and what had to be converted or why there are none."""
    if not path.exists():
        return None, "no such file"
    try:
        return read_view(path, view)
    except ImageError as error:
        return None, str(error)


def _files(images: Iterable[Path]) -> Iterator[Path]:
    for path in images:
        if not path.is_dir():
            yield path
            continue
        for folder, inner, names in os.walk(path):  # links to folders are not followed: no loops
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))
