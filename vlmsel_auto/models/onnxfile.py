"""An exported model, or an ensemble, as one ONNX file that says how images are prepared for it.

The graph takes bytes as Pillow gives them (uint8, RGB) and returns class probabilities; mean and standard deviation are
inside. What is left to do outside, and what the columns mean, stands in the file's metadata.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from vlmsel_auto.errors import CandidateError, InputError, MissingDependency, TaskError
from vlmsel_auto.events import Sink, StageFinished, StageProgress, StageStarted, discard
from vlmsel_auto.models.exported import ExportedModel, load_exported
from vlmsel_auto.models.prediction import Paths, as_paths, image_files, probabilities, read_batches, stack
from vlmsel_auto.records import UNLABELLED, FloatArray, ImageView
from vlmsel_auto.tasks.names import nfc

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE: Final = 1e-4  # of a probability, between file and model, both in single precision
_PACKAGES: Final = ("onnx", "onnxscript", "onnxruntime")
_OUTPUT: Final = "probabilities"
_PREPROCESSING: Final = (
    "Inputs are uint8 (n, size, size, 3), RGB, of the same n images: upright by EXIF, transparency on white, resized "
    "and cropped as 'inputs' says. resize_mode shortest: shorter side to size, then centre crop; squash: both sides to "
    "size; longest: longer side to size, centred on fill_color. The graph divides by 255, subtracts mean, divides by "
    "std. Logits of a member: unit embedding x class weights / temperature + bias. Several members are pooled by the "
    "weighted sum of their log-probabilities."
)
_LARGEST: Final = 1_900_000_000  # bytes of weights in the file itself: a protobuf ends at 2 GiB
_HALVED: Final = 1024  # numbers: smaller tensors stay in single precision, they save nothing
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
    if shown:
        _check_images(shown, model.views)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=file.parent) as folder:
            part = Path(folder) / file.name
            _write(model, part, half=half, sink=sink)
            sink(StageFinished(stage="export", seconds=time.monotonic() - began, text="converted"))
            check = _compare(part, model, shown, sink=sink)
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
    """What the file computes: probabilities (n, K), float32."""

    def __init__(self, model: ExportedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *pixels: Tensor) -> Tensor:
        found: Tensor = self.model(*pixels).softmax(dim=-1)
        return found


def _write(model: ExportedModel, file: Path, *, half: bool, sink: Sink) -> None:
    import onnx

    two = tuple(torch.zeros(2, view.size, view.size, 3, dtype=torch.uint8) for view in model.views)
    graph, last = _Graph(model), len(model.members)
    try:
        with _quiet(), _told(graph, sink), torch.no_grad():
            program = cast(
                "torch.onnx.ONNXProgram",  # None is of the exporter before dynamo
                torch.onnx.export(
                    graph,
                    two,
                    dynamo=True,
                    verbose=False,
                    input_names=input_names(model),
                    output_names=[_OUTPUT],
                    dynamic_shapes=(tuple({0: Dim("batch")} for _ in two),),
                    optimize=False,  # takes longest: a step of its own below
                ),
            )
            sink(StageProgress(stage="export", done=last + 1, text="simplify the graph"))
            program.optimize()
            sink(StageProgress(stage="export", done=last + 2, text="write the file"))
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


def _check_images(images: Sequence[Path], views: Sequence[ImageView]) -> None:
    """Refuse what the file could not be compared on, before it is made."""
    with closing(read_batches(image_files(images), views=views, size=1)) as batches:
        if not any(each.pixels is not None for batch in batches for each in batch):
            raise TaskError(f"At least one usable image is needed, but got {[str(each) for each in images]!r}")


def _compare(file: Path, model: ExportedModel, images: Sequence[Path], *, sink: Sink) -> OnnxCheck:
    """Run file and model on the images, or on noise."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # nothing is sent anywhere; read when it is imported
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = input_names(model)

    def check(pixels: Sequence[NDArray[np.uint8]], labels: Sequence[int]) -> OnnxCheck:
        (found,) = session.run([_OUTPUT], dict(zip(names, pixels, strict=True)))
        return _check(probabilities(model, pixels), np.asarray(found, dtype=np.float64), labels)

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


@contextmanager
def _told(graph: _Graph, sink: Sink) -> Iterator[None]:
    """Tell which member torch is tracing, and when all are: it says nothing itself."""
    towers = graph.model.towers

    def tell(done: int, text: str, *_: object) -> None:
        sink(StageProgress(stage="export", done=done, text=text))

    with ExitStack() as stack:
        for place, tower in enumerate(towers):
            text = f"read member {place + 1} of {len(towers)}"
            stack.callback(tower.register_forward_pre_hook(partial(tell, place, text)).remove)
        stack.callback(graph.register_forward_hook(partial(tell, len(towers), "translate the graph")).remove)
        yield


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
