"""What is known of a candidate before it is loaded: sizes, costs, licence, training data. No torch, no network.

Parameters, operations, bytes written and peak memory of open_clip's towers were counted by
``benchmarks/makers/model_cards.py``; licences and training data are what the publishers state, with the source beside
each row of ``data/openclip_publishers.json``; memory is an estimate from the parameters, and so are bytes to download
until the hub was asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import Final, cast

from safetensors import SafetensorError, safe_open

from vlmsel_auto.cache import Json
from vlmsel_auto.models import catalogue
from vlmsel_auto.models.catalogue import HUB, package_file, read_json
from vlmsel_auto.models.modeldir import read_model_dir
from vlmsel_auto.records import Candidate

EMBED_BATCH: Final = 64  # images that are embedded at once
UNKNOWN: Final = "unknown"

_FLOAT = 4  # bytes of a parameter, on the hub and in memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """A candidate as it can be judged without its weights; None: not known."""

    candidate: str
    params: int | None  # of both towers
    flops: float | None  # operations (2 x multiply-adds) of one image through the visual tower
    written: int | None  # bytes of the results of all those operations, float32
    download_bytes: int | None  # as the hub told, else an estimate, as if every parameter had 4 bytes; 0: on this disk
    memory_bytes: int | None  # estimate: to load in float32 and embed 64 images at once
    image_size: int  # side of the square input, pixels
    repository: str  # on the hub, "ORG/NAME"; empty: not from there
    licence: str  # SPDX identifier where there is one, else the publisher's name for it, or "unknown"
    training_data: str  # or "unknown"
    training_pairs: float | None  # pairs of image and text in it, as stated
    lacks: tuple[str, ...]  # packages that it needs and that are not installed
    mean_accuracy: float | None = None  # published zero-shot accuracy, mean over data sets, in [0, 1]
    imagenet: float | None = None  # published zero-shot accuracy on ImageNet, in [0, 1]


def facts_of(
    candidate: Candidate,
    *,
    download_bytes: int | None = None,
    mean_accuracy: float | None = None,
    imagenet: float | None = None,
) -> Facts:
    """Look up what is known of a candidate.

    Args:
        candidate: from `vlmsel_auto.models.candidates`.
        download_bytes: as the hub told (`vlmsel_auto.models.download.sizes`); None: they are estimated.
        mean_accuracy: published mean zero-shot accuracy, from `vlmsel_auto.library.published`; None: not known.
        imagenet: the same on ImageNet.

    Raises:
        CandidateError: a folder cannot be used any more.
    """
    costs = _costs(candidate)
    peak, written = costs.get("visual_peak"), costs.get("visual_written")
    params = _params(candidate)
    repository = _repository(candidate)
    return Facts(
        candidate=candidate.id,
        params=params,
        flops=candidate.flops,
        written=written if isinstance(written, int) else None,
        download_bytes=_download(candidate, params) if download_bytes is None else download_bytes,
        memory_bytes=None if params is None else _memory(params, peak if isinstance(peak, int) else 0),
        image_size=candidate.view.size,
        repository=repository,
        licence=_licence(candidate, repository),
        training_data=_training_data(candidate),
        training_pairs=_training_pairs(candidate),
        lacks=("transformers",) if _wants_transformers(costs) and find_spec("transformers") is None else (),
        mean_accuracy=mean_accuracy,
        imagenet=imagenet,
    )


def known_sum(values: Sequence[int | None]) -> int | None:
    """The sum of figures of several models; None where one of them is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _download(candidate: Candidate, params: int | None) -> int | None:
    return 0 if candidate.path else None if params is None else _FLOAT * params


def _memory(params: int, peak: int) -> int:
    """Bytes while loading, when file and model are both there, or while embedding, whichever is more."""
    weights = _FLOAT * params
    return weights + max(weights, EMBED_BATCH * peak)


def _costs(candidate: Candidate) -> Mapping[str, Json]:
    """The card of a mini-zoo member, or the catalogue's row of an architecture."""
    if candidate.source == "mini-zoo" and candidate.path is not None:
        return read_json(candidate.path / "card.json")
    return catalogue.architecture(candidate.arch) if candidate.source == "open_clip" else {}


def _params(candidate: Candidate) -> int | None:
    if candidate.params is not None or candidate.path is None:
        return candidate.params
    weights = read_model_dir(candidate.path).weights
    try:
        with safe_open(weights, framework="numpy") as file:  # reads the header alone
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError):  # a PyTorch file tells nothing unless it is read
        return None
    return int(sum(math.prod(shape) for shape in shapes))


def _wants_transformers(costs: Mapping[str, Json]) -> bool:
    return any(costs.get(name) for name in ("hf_model_name", "hf_tokenizer_name"))


def _repository(candidate: Candidate) -> str:
    if candidate.arch.startswith(HUB):
        return candidate.arch.removeprefix(HUB)
    place = catalogue.tags().get(candidate.arch, {}).get(candidate.tag)
    found = place.get("hf_hub") if isinstance(place, dict) and candidate.source == "open_clip" else None
    return "/".join(str(found or "").split("/")[:2])  # what follows is a file


def _licence(candidate: Candidate, repository: str) -> str:
    if candidate.source == "mini-zoo":
        return "Apache-2.0"  # LICENSE of this package
    return _first("licences", repository, pattern="repositories", value="licence")


def _training_data(candidate: Candidate) -> str:
    if candidate.source == "mini-zoo":
        return "see minizoo/README.md"
    return _first("training_data", candidate.tag, pattern="tags", value="data")


def _training_pairs(candidate: Candidate) -> float | None:
    found = {} if candidate.source == "mini-zoo" else _row("training_data", candidate.tag, pattern="tags")
    return float(found["pairs"]) if "pairs" in found else None


def _first(rows: str, name: str, *, pattern: str, value: str) -> str:
    """The value of the first row whose pattern fits."""
    return str(_row(rows, name, pattern=pattern).get(value, UNKNOWN))


def _row(rows: str, name: str, *, pattern: str) -> Mapping[str, str | float]:
    """The first row whose pattern fits; empty: none does."""
    table = cast("list[dict[str, str]]", read_json(package_file("data") / "openclip_publishers.json")[rows])
    return next((row for row in table if fnmatchcase(name, row[pattern])), {})
