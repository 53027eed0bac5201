"""Folders of images that no mini-zoo member was pretrained on, as targets for comparisons of whole searches.

The mini zoo saw training images of most tasks; remembered images would make validation useless. So the targets are made
of test rows (or of all rows of tasks in no member's training mixture, ``--unseen``): up to ``--train`` a class,
but no more than half, as train/, and up to ``--test`` in all as test/. What a search needs for validation it draws from
train/ itself.

    python benchmarks/fresh_targets.py TASKS --out TARGETS --only cifar10,textures --seed 1
    python benchmarks/live_search.py --tasks TARGETS --seconds 80
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet

UNSEEN = "ants_bees,brain_mri,monkeys,hiragana,white_blood_cells,synth_sentiment"  # in no member's training.json


def make(source: Path, out: Path, *, train: int, test: int, seed: int, every_row: bool) -> tuple[int, int]:
    """Write one target; return its numbers of training and test images."""
    told = json.loads((source / "task.json").read_text("utf-8"))
    table = pyarrow.parquet.read_table(source / "images.parquet").to_pydict()
    usable = [row for row, part in enumerate(table["split"]) if every_row or part == "test"]
    rng = np.random.default_rng(seed)
    each = max(3, test // len(told["classes"]))
    counts = [0, 0]
    for label, name in enumerate(told["classes"]):
        mine = [row for row in usable if table["label"][row] == label]
        rng.shuffle(mine)
        kept = min(train, len(mine) // 2)
        for place, (part, rows) in enumerate((("train", mine[:kept]), ("test", mine[kept : kept + each]))):
            folder = out / part / str(name).replace("/", "_")
            folder.mkdir(parents=True, exist_ok=True)
            counts[place] += len(rows)
            for row in rows:
                image = table["image"][row]
                (folder / f"{row}.png").write_bytes(image["bytes"] if isinstance(image, dict) else image)
    (out / "task.toml").write_text(f"domain = {json.dumps(told.get('domain', source.name))}\n", "utf-8")
    return counts[0], counts[1]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, help="folder of tasks, each with images.parquet and task.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="comma list of task names; default: all")
    parser.add_argument("--unseen", default=UNSEEN, help="comma list: all rows are used; default: %(default)s")
    parser.add_argument("--train", type=int, default=40, help="training images a class, at most")
    parser.add_argument("--test", type=int, default=240, help="test images in all, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="the first task only")
    args = parser.parse_args()
    only = set(args.only.split(",")) - {""}
    folders = sorted(
        one for one in args.tasks.iterdir() if (one / "task.json").is_file() and (not only or one.name in only)
    )
    made = {}
    for folder in folders[:1] if args.quick else folders:
        every_row = folder.name in args.unseen.split(",")
        target = args.out / folder.name
        if target.exists():
            parser.error(f"a target must not be there yet, but got {target}")
        made[folder.name] = make(folder, target, train=args.train, test=args.test, seed=args.seed, every_row=every_row)
        print(f"{folder.name}: {made[folder.name][0]} for training, {made[folder.name][1]} for testing", flush=True)
    print(json.dumps({name: {"train": train, "test": test} for name, (train, test) in made.items()}))


if __name__ == "__main__":
    main()
