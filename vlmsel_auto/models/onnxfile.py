"""An exported model, or an ensemble, as one ONNX file that says how images are prepared for it.

The graph takes bytes as Pillow gives them (uint8, RGB) and returns class probabilities; mean and standard deviation are
inside. What is left to do outside, and what the columns mean, stands in the file's metadata.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from vlmsel_auto.errors import CandidateError, InputError, MissingDependency
from vlmsel_auto.events import Sink, StageFinished, StageProgress, StageStarted, discard
from vlmsel_auto.models.exported import ExportedModel, load_exported
from vlmsel_auto.models.onnxcheck import OnnxCheck, compare
from vlmsel_auto.models.prediction import Paths, as_paths
from vlmsel_auto.recordjson import encode

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE: Final = 1e-4  # of a probability, between file and model, both in single precision
_PACKAGES: Final = ("onnx", "onnxscript", "onnxruntime")
_OUTPUTS: Final = ("probabilities", "unlike")
_PREPROCESSING: Final = (
    "Inputs are uint8 (n, size, size, 3), RGB, of the same n images: upright by EXIF, transparency on white, resized "
    "and cropped as 'inputs' says. resize_mode shortest: shorter side to size, then centre crop; squash: both sides to "
    "size; longest: longer side to size, centred on fill_color. The graph divides by 255, subtracts mean, divides by "
    "std. Logits of a member: unit embedding x class weights / temperature + bias. Several members are pooled by the "
    "weighted sum of their log-probabilities. 'answers' says what held-out images assure of classes from a probability "
    "on. Output 'unlike' above 1: unlike what the model learned; always 0 where it does not know."
)
_LARGEST: Final = 1_900_000_000  # bytes of weights in the file itself: a protobuf ends at 2 GiB
_HALVED: Final = 1024  # numbers: smaller tensors stay in single precision, they save nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxExport:
    """What was written."""

    file: Path
    bytes: int  # with the weights beside it, where there are any
    half: bool
    check: OnnxCheck


def export_onnx(
    model_dir: str | PathLike[str],
    file: str | PathLike[str],
    *,
    half: bool = False,
    images: Paths = (),
    sink: Sink = discard,
) -> OnnxExport:
    """Write an exported model, or an ensemble, as one ONNX file, and compare the file with the model.

    Args:
        model_dir: the exported folder.
        file: to write; one that is there is replaced. Weights of more than 1.9 GB go to ``FILE.data`` beside it.
        half: weights in half precision: half the size; arithmetic stays in single precision.
        images: files and folders to compare on; of images in a folder of a class's name, accuracy is told too. Without
            any, 16 images of noise are used.
        sink: takes the events of stage "export".

    Raises:
        CandidateError: the folder is no export, a tower cannot be put into ONNX, or the file computes something else
            (without ``half``: a probability differs by more than 1e-4).
        InputError: the file cannot be written.
        MissingDependency: the extra ``onnx`` is not installed.
        TaskError: not one of the images is usable.
        TrialUnavailable: weights cannot be loaded.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise MissingDependency(f"ONNX files need {', '.join(missing)}; install with: pip install 'vlmsel-auto[onnx]'")
    began, file, shown = time.monotonic(), Path(file), as_paths(images)
    sink(StageStarted(stage="export", text="load the model"))
    model = load_exported(Path(model_dir)).eval()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=file.parent) as folder:
            part = Path(folder) / file.name
            _write(model, part, half=half, sink=sink)
            sink(StageFinished(stage="export", seconds=time.monotonic() - began, text="converted"))
            check = compare(part, model, shown, sink=sink)
            if not half and not check.largest_difference <= TOLERANCE:  # NaN neither
                raise CandidateError(
                    f"The ONNX file of this model computes something else: use the model folder, but got probabilities "
                    f"that differ by {check.largest_difference:.1e} for {str(model_dir)!r}"
                )
            size = sum(each.stat().st_size for each in Path(folder).iterdir())
            for each in sorted(Path(folder).iterdir(), reverse=True):  # the weights before the file that names them
                each.replace(file.parent / each.name)
    except OSError as error:
        raise InputError(f"the ONNX file cannot be written here ({error.strerror}), but got {str(file)!r}") from error
    return OnnxExport(file=file, bytes=size, half=half, check=check)


def input_names(model: ExportedModel) -> tuple[str, ...]:
    """Names of the graph's inputs, one a view."""
    several = len(model.views) > 1
    return tuple(f"pixels_{place}" if several else "pixels" for place in range(1, len(model.views) + 1))


class _Graph(nn.Module):
    """What the file computes: probabilities (n, K) and how unlike the training images (n,), float32."""

    def __init__(self, model: ExportedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits, unlike = self.model(*pixels)
        return logits.softmax(dim=-1), unlike


def _write(model: ExportedModel, file: Path, *, half: bool, sink: Sink) -> None:
    import onnx

    two = tuple(torch.zeros(2, view.size, view.size, 3, dtype=torch.uint8) for view in model.views)
    try:
        with _quiet(), torch.no_grad():
            sink(StageProgress(stage="export", done=0, text="read and translate the model"))
            program = cast(
                "torch.onnx.ONNXProgram",  # None is of the exporter before dynamo
                torch.onnx.export(
                    _Graph(model),
                    two,
                    dynamo=True,
                    verbose=False,
                    input_names=input_names(model),
                    output_names=_OUTPUTS,
                    dynamic_shapes=(tuple({0: Dim("batch")} for _ in two),),
                    optimize=False,  # takes longest: a step of its own below
                ),
            )
            sink(StageProgress(stage="export", done=1, text="simplify the graph"))
            program.optimize()
            sink(StageProgress(stage="export", done=2, text="write the file"))
            program.save(file, external_data=True)
    except Exception as error:  # torch's exporter wraps all kinds
        if isinstance(error, OSError):
            raise
        raise CandidateError(
            f"This model cannot be put into ONNX; use its folder, but got {type(error).__name__}: {str(error)[:300]}"
        ) from error
    proto = onnx.load(file)
    beside = file.with_name(file.name + ".data")
    beside.unlink(missing_ok=True)
    _forget_sources(proto)
    if half:
        _halve(proto)
    onnx.helper.set_model_props(proto, _metadata(model, half=half))
    large = sum(len(each.raw_data) for each in proto.graph.initializer) > _LARGEST
    onnx.save(proto, file, save_as_external_data=large, location=beside.name if large else None)


def _metadata(model: ExportedModel, *, half: bool) -> dict[str, str]:
    names = input_names(model)
    inputs = {name: asdict(view) for name, view in zip(names, model.views, strict=True)}
    members = [
        {
            "candidate": one.classifier.candidate,
            "input": names[model.views.index(one.view)],
            "mean": list(one.model.mean),
            "std": list(one.model.std),
            "temperature": 1 / one.classifier.scale,
            "weight": one.weight,
        }
        for one in model.members
    ]
    return {
        "vlmsel_auto": version("vlmsel-auto"),
        "classes": json.dumps(list(model.classes)),
        "inputs": json.dumps(inputs),
        "members": json.dumps(members),
        "answers": json.dumps(encode(model.answers)),
        "preprocessing": _PREPROCESSING,
        "weights": "float16" if half else "float32",
    }


def _forget_sources(proto: ModelProto) -> None:
    """Leave out the exporter's notes on nodes: they name files of this machine."""
    for node in (*proto.graph.node, *(each for function in proto.functions for each in function.node)):
        node.ClearField("metadata_props")
        node.ClearField("doc_string")


def _halve(proto: ModelProto) -> None:
    """Keep large weights in half precision and cast them back where they are used.

    Arithmetic in half precision would be another model: onnxruntime lacks it for some operations on some processors.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor) if tensor.data_type == TensorProto.FLOAT else np.zeros(0)
        if values.size < _HALVED or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *nodes])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's warnings and log lines off the terminal: what is wrong, it raises."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)
