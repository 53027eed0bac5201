"""QUESTION: What makes folders of images that no mini-zoo member was pretrained on?

PAGE: docs/results/accuracy.md
RESULT: none

The mini zoo saw training images of most tasks; remembered images would make validation useless. So the targets are made
of test rows (or of all rows of tasks in no member's training mixture, ``--unseen``): up to ``--train`` a class,
but no more than half, as train/, and up to ``--test`` in all as test/. What a search needs for validation it draws from
train/ itself. With ``--halves`` a task of four classes or more gives two targets, NAME-even and NAME-odd, of every
second class; others give NAME-even alone, whole.

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --only cifar10,textures --seed 1
    python -m benchmarks.search.live_search --tasks TARGETS --seconds 80
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet

UNSEEN = "ants_bees,brain_mri,monkeys,hiragana,white_blood_cells,synth_sentiment"  # in no member's training.json

FEWEST = 4  # classes that make two halves


def make(
    source: Path,
    out: Path,
    *,
    train: int,
    test: int,
    seed: int,
    every_row: bool = False,
    remembered: bool = False,
    tail: float = 1.0,
    places: slice = slice(None),
) -> tuple[int, int]:
    """Write one target; return its numbers of training and test images.

    Args:
        source: folder of the task.
        out: folder of the target.
        train: training images a class, at most.
        test: test images in all, about.
        seed: which images.
        every_row: images of training rows are taken too: no member saw them.
        remembered: the training images are training rows, which members saw; the test images are not.
        tail: the first class has so many times the images of the last, those between by equal ratios.
        places: which of its classes.
    """
    told = json.loads((source / "task.json").read_text("utf-8"))
    table = pyarrow.parquet.read_table(source / "images.parquet").to_pydict()
    rng = np.random.default_rng(seed)
    names = told["classes"][places]
    classes = len(names)
    counts = [0, 0]
    for order, name in enumerate(names):
        label = told["classes"].index(name)
        usable: dict[str, list[int]] = {"train": [], "test": []}
        for row, part in enumerate(table["split"]):
            if table["label"][row] == label:
                usable["test" if every_row else part].append(row)
        mine = usable["test"]
        rng.shuffle(mine)
        share = tail ** -(order / max(1, classes - 1))
        kept, shown = max(2, round(share * train)), max(3, int(share * test / classes))
        if remembered:
            seen = usable["train"]
            rng.shuffle(seen)
            pairs = (("train", seen[:kept]), ("test", mine[:shown]))
        else:
            kept = min(kept, len(mine) // 2)
            pairs = (("train", mine[:kept]), ("test", mine[kept : kept + shown]))
        for place, (part, rows) in enumerate(pairs):
            folder = out / part / str(name).replace("/", "_")
            folder.mkdir(parents=True, exist_ok=True)
            counts[place] += len(rows)
            for row in rows:
                image = table["image"][row]
                (folder / f"{row}.png").write_bytes(image["bytes"] if isinstance(image, dict) else image)
    (out / "task.toml").write_text(f"domain = {json.dumps(told.get('domain', source.name))}\n", "utf-8")
    return counts[0], counts[1]


def parts_of(source: Path) -> tuple[tuple[str, slice], ...]:
    """Ends of the names of both halves of a task and the places of their classes; one half where it has few."""
    few = len(json.loads((source / "task.json").read_text("utf-8"))["classes"]) < FEWEST
    return (("-even", slice(None)),) if few else (("-even", slice(0, None, 2)), ("-odd", slice(1, None, 2)))


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
    parser.add_argument("--remembered", action="store_true", help="train/ holds images that members were trained on")
    parser.add_argument("--tail", type=float, default=1.0, help="images of the first class for one of the last")
    parser.add_argument("--halves", action="store_true", help="two targets a task, of every second class")
    parser.add_argument("--quick", action="store_true", help="the first task only")
    args = parser.parse_args()
    only = set(args.only.split(",")) - {""}
    folders = sorted(
        one for one in args.tasks.iterdir() if (one / "task.json").is_file() and (not only or one.name in only)
    )
    made = {}
    for folder in folders[:1] if args.quick else folders:
        every_row = folder.name in args.unseen.split(",")
        for suffix, places in parts_of(folder) if args.halves else (("", slice(None)),):
            target = args.out / f"{folder.name}{suffix}"
            if target.exists():
                parser.error(f"a target must not be there yet, but got {target}")
            made[target.name] = train, test = make(
                folder, target, train=args.train, test=args.test, seed=args.seed, every_row=every_row,
                remembered=args.remembered and not every_row, tail=args.tail, places=places,
            )  # fmt: skip
            print(f"{target.name}: {train} for training, {test} for testing", flush=True)
    print(json.dumps({name: {"train": train, "test": test} for name, (train, test) in made.items()}))


if __name__ == "__main__":
    main()
