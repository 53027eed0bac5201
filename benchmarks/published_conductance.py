"""Packs the DCD authors' printed conductances, copied from their logs into a CSV, into the file that the package ships.

Columns of the CSV: arch, tag, task (the authors' name), blocks and mean_abs_conductance_1e-9 (both separated by
blanks, in one order). Data sets get the names of open_clip's table, where it has them.

    python benchmarks/published_conductance.py dcd_conductance_real.csv
    python benchmarks/published_conductance.py dcd_conductance_real.csv --out FILE
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.library.published import read_table
from vlmsel_auto.library.published_conductance import PublishedConductance, save, shipped_path

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


def read(path: Path) -> PublishedConductance:
    """The CSV's figures; KeyError where a model lacks a data set."""
    _, rows = read_table(path)
    cells = {(f"{row['arch']}/{row['tag']}", row["task"]): row for row in rows}
    ids = tuple(dict.fromkeys(model for model, _ in cells))
    blocks = tuple(tuple(cells[model, next(iter(NAMES))]["blocks"].split()) for model in ids)
    mean = [[cells[model, task]["mean_abs_conductance_1e-9"].split() for task in NAMES] for model in ids]
    return PublishedConductance(
        candidate_ids=ids,
        tasks=tuple(NAMES.values()),
        blocks=blocks,
        mean=tuple(1e-9 * np.array(one, dtype=np.float64) for one in mean),
        source=SOURCE,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, metavar="CSV")
    parser.add_argument("--out", type=Path, default=shipped_path(), help="(%(default)s)")
    args = parser.parse_args()
    found = read(args.table)
    save(found, args.out)
    figures = sum(one.size for one in found.mean)
    print(json.dumps({"models": len(found.mean), "tasks": len(found.tasks), "figures": figures}))


if __name__ == "__main__":
    main()
