"""QUESTION: What makes folders of images that no mini-zoo member was pretrained on?

PAGE: docs/results/accuracy.md
RESULT: none

The mini zoo saw training images of most tasks; remembered images would make validation useless. So the targets are made
of test rows (or of all rows of tasks in no member's training mixture, ``--unseen``): up to ``--train`` a class,
but no more than half, as train/, and up to ``--test`` in all as test/. What a search needs for validation it draws from
train/ itself.

`far_candidates` says which members know little of the domain of a task: not the generalists, nor those whose mixture is
of its kind. Mixtures differ by tag alone (``mix`` of their `training.json`, told in the zoo's card). Every mixture
holds a little of every task: of the others each task is .8 to 3.2 % of the images that they were trained on. A task
that is in no mixture is far for everyone.

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --only cifar10,textures --seed 1
    python -m benchmarks.search.final_accuracy TARGETS --records RECORDS
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet

from benchmarks.common import command_line, folders
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.records import Candidate

UNSEEN = "ants_bees,brain_mri,monkeys,hiragana,white_blood_cells,synth_sentiment"  # in no member's training.json
KNOWN_BY = {  # tags whose mixtures are of the kind of the task
    "photo": {"aerial_scenes": ("odd",), "cats_dogs": ("photo",), "cifar10": ("photo", "odd"), "flowers5": ("photo",),
              "food101": ("photo",), "house_rooms": ("photo",), "malaria": ("odd",), "textures": ("odd",),
              "trash": ("photo", "odd"), "weather": ("photo", "odd")},
    "drawing": {"emoji_groups": ("odd",), "fashion_mnist": ("odd",), "mnist": ("glyph", "odd"),
                "omniglot_alphabets": ("glyph",), "optical_digits": ("glyph",), "playing_cards": ("glyph",),
                "sign_digits": ("glyph",), "arabic_letters": ("glyph",), "synth_color": ("synth",),
                "synth_count": ("synth",), "synth_position": ("synth",), "synth_shape": ("synth",)},
}  # fmt: skip


def far_candidates(task: str) -> tuple[Candidate, ...]:
    """Members of the mini zoo that know little of the task; all of them where no mixture holds it."""
    known = next((each[task] for each in KNOWN_BY.values() if task in each), None)
    if known is None:
        return mini_zoo()
    tags = ("all", *known)
    return tuple(each for each in mini_zoo() if not any(f".{tag}-" in each.id for tag in tags))


def make(source: Path, out: Path, *, train: int, test: int, seed: int, every_row: bool) -> tuple[int, int]:
    """Write one target; return its numbers of training and test images.

    Args:
        source: folder of the task.
        out: folder of the target.
        train: training images a class, at most.
        test: test images in all, about.
        seed: which images.
        every_row: images of training rows are taken too: no member saw them.
    """
    told = json.loads((source / "task.json").read_text("utf-8"))
    table = pyarrow.parquet.read_table(source / "images.parquet").to_pydict()
    rng = np.random.default_rng(seed)
    names, counts = told["classes"], [0, 0]
    for label, name in enumerate(names):
        there = zip(table["split"], table["label"], strict=True)
        mine = [row for row, (part, of) in enumerate(there) if of == label and (every_row or part == "test")]
        rng.shuffle(mine)
        kept, shown = min(max(2, train), len(mine) // 2), max(3, test // len(names))
        for place, (part, rows) in enumerate((("train", mine[:kept]), ("test", mine[kept : kept + shown]))):
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
    parser = command_line(__doc__, write=False, quick="the first task only")
    parser.add_argument("tasks", type=Path, help="folder of tasks, each with images.parquet and task.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="comma list of task names; default: all")
    parser.add_argument("--unseen", default=UNSEEN, help="comma list: all rows are used; default: %(default)s")
    parser.add_argument("--train", type=int, default=40, help="training images a class, at most")
    parser.add_argument("--test", type=int, default=240, help="test images in all, about")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    made = {}
    for folder in folders(args.tasks, only=args.only, quick=args.quick):
        target = args.out / folder.name
        if target.exists():
            parser.error(f"a target must not be there yet, but got {target}")
        every_row = folder.name in args.unseen.split(",")
        made[folder.name] = train, test = make(
            folder, target, train=args.train, test=args.test, seed=args.seed, every_row=every_row
        )
        print(f"{folder.name}: {train} for training, {test} for testing", flush=True)
    print(json.dumps({name: {"train": train, "test": test} for name, (train, test) in made.items()}))


if __name__ == "__main__":
    main()
