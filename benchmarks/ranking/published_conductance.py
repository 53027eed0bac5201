"""QUESTION: What makes the file of conductances of real models that the DCD authors' code printed?

PAGE: docs/results/conductance.md
RESULT: none

benchmarks/data/dcd-conductance.safetensors has the mean |conductance| of every visual block, one image a data set, F =
norm of the unnormalised embedding, from the logs of github.com/echoas8/DCD (commit 9e872a6). Run as a script, this
packs the printed figures, copied from the logs into a CSV, into that file.

Columns of the CSV: arch, tag, task (the authors' name), blocks and mean_abs_conductance_1e-9 (both separated by
blanks, in one order). Data sets get the names of open_clip's table, where it has them.

    python -m benchmarks.ranking.published_conductance dcd_conductance_real.csv
    python -m benchmarks.ranking.published_conductance dcd_conductance_real.csv --out FILE
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.common import command_line
from vlmsel_auto.cache import Json
from vlmsel_auto.library.file import Arrays, checked, read_document, write_document
from vlmsel_auto.records import FloatArray

FORMAT: Final = "vlmsel_auto published conductance"
VERSION: Final = 1
PATH: Final = Path(__file__).parents[1] / "data" / "dcd-conductance.safetensors"
UNIT: Final = 1e-9  # figures are kept as whole numbers of it, as they were printed
SOURCE: Final = "printed logs of github.com/echoas8/DCD, commit 9e872a6"
NAMES: Final[Mapping[str, str]] = {
    "car": "Stanford Cars",
    "cifar": "CIFAR-100",
    "clevr": "CLEVR Counts",
    "country": "Country211",
    "dmlab": "DMLab",
    "dr": "Diabetic Retinopathy",
    "dtd": "Describable Textures",
    "eurosat": "EuroSAT",
    "fer2013": "FER2013",
    "gtsrb": "GTSRB",
    "kitti": "KITTI Vehicle Distance",
    "mnist": "MNIST",
    "oxford_flowers": "Oxford Flowers-102",
    "oxford_pet": "Oxford-IIIT Pet",
    "patch_camelyon": "PatchCamelyon",
    "renderedsst2": "Rendered SST2",
    "resisc45": "RESISC45",
    "stl10": "STL-10",
    "sun397": "SUN397",
    "svhn": "SVHN",
    "voc_pose": "Pascal VOC 2007",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedConductance:
    """M models on S data sets."""

    candidate_ids: tuple[str, ...]  # (M,) "arch/tag" as in open_clip
    tasks: tuple[str, ...]  # (S,) named as in `published.datasets`, where it has them
    blocks: tuple[tuple[str, ...], ...]  # of each model its B visual blocks, shallow to deep
    mean: tuple[FloatArray, ...]  # of each model (S, B): mean |conductance| over a block's neurons, > 0, units of F
    source: str


def save(published: PublishedConductance, path: Path) -> None:
    """Write published conductances, whole or not at all.

    Raises:
        LibraryError: the file cannot be written.
    """
    document: Json = {
        "candidates": [
            {"id": name, "blocks": list(blocks)}
            for name, blocks in zip(published.candidate_ids, published.blocks, strict=True)
        ],
        "tasks": list(published.tasks),
        "source": published.source,
    }
    arrays = {f"mean/{m}": np.rint(one / UNIT).astype(np.uint32) for m, one in enumerate(published.mean)}
    write_document(path, document, arrays, kind=FORMAT, version=VERSION)


def load(path: Path = PATH) -> PublishedConductance:
    """Read published conductances.

    Raises:
        LibraryError: the file is missing, unreadable, cut short, damaged, of another kind or version.
    """
    return read_document(path, _published, kind=FORMAT, version=VERSION)


def _published(document: dict[str, Any], arrays: Arrays) -> PublishedConductance:
    tasks, blocks = tuple(document["tasks"]), tuple(tuple(one["blocks"]) for one in document["candidates"])
    return PublishedConductance(
        candidate_ids=tuple(one["id"] for one in document["candidates"]),
        tasks=tasks,
        blocks=blocks,
        mean=tuple(UNIT * checked(arrays, f"mean/{m}", (len(tasks), len(one))) for m, one in enumerate(blocks)),
        source=document["source"],
    )


def read(path: Path) -> PublishedConductance:
    """The CSV's figures; KeyError where a model lacks a data set."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    cells = {(f"{row['arch']}/{row['tag']}", row["task"]): row for row in rows}
    ids = tuple(dict.fromkeys(model for model, _ in cells))
    blocks = tuple(tuple(cells[model, next(iter(NAMES))]["blocks"].split()) for model in ids)
    mean = [[cells[model, task]["mean_abs_conductance_1e-9"].split() for task in NAMES] for model in ids]
    return PublishedConductance(
        candidate_ids=ids,
        tasks=tuple(NAMES.values()),
        blocks=blocks,
        mean=tuple(UNIT * np.array(one, dtype=np.float64) for one in mean),
        source=SOURCE,
    )


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, write=False)
    parser.add_argument("table", type=Path, metavar="CSV")
    parser.add_argument("--out", type=Path, default=PATH, help="(%(default)s)")
    args = parser.parse_args()
    found = read(args.table)
    save(found, args.out)
    figures = sum(one.size for one in found.mean)
    print(json.dumps({"models": len(found.mean), "tasks": len(found.tasks), "figures": figures}))


if __name__ == "__main__":
    main()
