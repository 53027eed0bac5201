"""QUESTION: Does anything tell that a candidate was pretrained on the user's own labelled images?

PAGE: docs/results/tuning.md
RESULT: benchmarks/results/contamination.json

The mini zoo's members saw training rows of 22 tasks, each in its own measure: 0 to 400 times an image, by the weights
in their training.json. Targets are made of such rows as labelled images, and of test rows, which nobody saw; of six
tasks that no member saw, of any rows. Per member and target it is measured on both halves what the zero-shot classifier
says of the images as they are, and mirrored, shifted, cropped, blurred and with noise. Two kinds of signs are compared:

- of the labelled images alone: how sure the zero-shot classifier is, and how much of that it loses when images are
  changed (remembered images should lose more, or less);
- labelled images beside test images (`vlmsel_auto.ranking.contamination`), with and without taking off what the other
  members say of each image.

AUC: of pairs of images seen 20 times or more above pairs that were seen at most 3 times; "same model": above the same
member on the unseen images of the same task.

    python -m benchmarks.tuning.contamination TASKS --records RECORDS --write benchmarks/results/contamination.json
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch.nn import functional

from benchmarks.tuning.fresh_targets import UNSEEN, make
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.ranking.contamination import SURE, Memory, gap_within_classes, memory
from vlmsel_auto.records import FloatArray, IntArray, Task
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tuning.work import MAX_SCALE

_IMAGES = 64  # of either half, about
_MANY, _FEW = 20.0, 3.0  # times that an image was seen
_BINS = (0.0, 3.0, 20.0, 50.0, 100.0, 1e9)
Arrays = dict[str, NDArray[np.float32] | IntArray]


def changed(pixels: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Images uint8 (n, S, S, 3) as they are and in mild changes."""
    yield "plain", pixels
    yield "flip", pixels.flip(2)
    maps = pixels.permute(0, 3, 1, 2).float()
    side = maps.shape[-1]
    by, rim = max(1, side // 10), side // 8
    wide = functional.pad(maps, (by, by, by, by), mode="reflect")
    inner = maps[:, :, rim : side - rim, rim : side - rim]
    generator = torch.Generator().manual_seed(0)
    for name, each in (
        ("shift", wide[:, :, :side, 2 * by :]),
        ("crop", functional.interpolate(inner, size=(side, side), mode="bilinear", align_corners=False)),
        ("blur", functional.avg_pool2d(functional.pad(maps, (1, 1, 1, 1), mode="reflect"), 3, 1)),
        ("noise", maps + 20 * torch.randn(maps.shape, generator=generator)),
    ):
        yield name, each.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def record(target: Path, *, scratch: Path) -> Arrays:
    """Cosines of all members on all images of a target, labelled ones first, by change."""
    views = tuple(dict.fromkeys(each.view for each in mini_zoo()))
    task: Task = load_task(target, views=views, workdir=scratch / target.name)
    labelled, test = np.sort(np.concatenate([task.train, task.val])), np.sort(task.test)
    rows = np.concatenate([labelled, test])
    found: Arrays = {"labels": task.labels[rows], "n_train": np.array(len(labelled))}
    for candidate in mini_zoo():
        model = zoo.load(candidate)
        text = model.text_features(task.prompts, task.templates)
        pixels = torch.from_numpy(np.array(task.pixels.read(candidate.view, rows)))
        with torch.inference_mode():
            for name, every in changed(pixels):
                parts = [model.embed(model.normalise(part)).float() for part in every.split(64)]  # type: ignore[no-untyped-call] # torch leaves it untyped
                found[f"{candidate.id}/cos/{name}"] = (
                    (functional.normalize(torch.cat(parts), dim=-1) @ text.T).numpy().astype(np.float32)
                )
        found[f"{candidate.id}/scale"] = np.array([model.logit_scale], dtype=np.float32)
    return found


def times_seen(tasks: Path) -> dict[tuple[str, str], float]:
    """How often a member saw each training row of a task, by (member, task)."""
    counts = {}
    for folder in tasks.iterdir():
        if (folder / "images.parquet").is_file():
            parts = pyarrow.parquet.read_table(folder / "images.parquet", columns=["split"]).to_pydict()["split"]
            counts[folder.name] = Counter(parts)["train"]
    found = {}
    for candidate in mini_zoo():
        assert candidate.path is not None  # noqa: S101 - the zoo ships
        told = json.loads((candidate.path / "training.json").read_text("utf-8"))
        whole = sum(told["mix"].values())
        for name, count in counts.items():
            share = told["mix"].get(name, 0.0) / whole
            found[candidate.id, name] = told["steps"] * told["batch"] * share / count
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """One member on one target."""

    seen: float  # times that it saw each labelled image
    alone: Mapping[str, tuple[float, float]]  # sign -> on labelled and on test images
    beside: Memory
    less_kin: float  # z of the same with the mean of the other members taken off each image


def pairs_of(task: str, arrays: Arrays, times: Mapping[tuple[str, str], float]) -> list[Pair]:
    """All members on one target."""
    labels, count = arrays["labels"].astype(np.int64), int(arrays["n_train"])
    halves = (slice(0, count), slice(count, None))
    every = {}
    for candidate in mini_zoo():
        start, scale = f"{candidate.id}/cos/", min(float(arrays[f"{candidate.id}/scale"].reshape(-1)[0]), MAX_SCALE)
        cosine = {name.removeprefix(start): each.astype(np.float64) for name, each in arrays.items() if start in name}
        every[candidate.id] = (
            cosine["plain"],
            scale,
            {key: _true(each, labels, scale=scale) for key, each in cosine.items()},
        )
    total = sum(true["plain"] for _, _, true in every.values())
    found = []
    for name, (plain, scale, true) in every.items():
        signs = {"zero-shot probability": true["plain"]}
        signs |= {f"loss by {key}": true["plain"] - each for key, each in true.items() if key != "plain"}
        beside = memory(
            plain[:count], labels[:count], test=plain[count:], test_labels=labels[count:], logit_scale=scale
        )
        rest = true["plain"] - (total - true["plain"]) / (len(every) - 1)
        less_kin = gap_within_classes(rest[:count], labels[:count], others=rest[count:], other_labels=labels[count:])
        assert beside is not None  # noqa: S101 - targets have images of every class
        assert less_kin is not None  # noqa: S101 - likewise
        alone = {sign: (float(each[halves[0]].mean()), float(each[halves[1]].mean())) for sign, each in signs.items()}
        found.append(Pair(seen=times.get((name, task), 0.0), alone=alone, beside=beside, less_kin=less_kin))
    return found


def _true(cosine: FloatArray, labels: IntArray, *, scale: float) -> FloatArray:
    return np.exp(log_softmax(scale * cosine, axis=1)[np.arange(len(labels)), labels])


def _auc(high: FloatArray, low: FloatArray) -> float:
    return float((high[:, None] > low[None]).mean() + 0.5 * (high[:, None] == low[None]).mean())


def report(pairs: list[Pair]) -> dict[str, dict[str, float]]:
    """Print both tables."""
    many = [each for each in pairs if each.seen >= _MANY]
    few = [each for each in pairs if each.seen <= _FEW]
    found: dict[str, dict[str, float]] = {}
    print(f"{len(many)} pairs seen {_MANY:g} times or more, {len(few)} at most {_FEW:g} times")
    print("\n| sign | AUC | AUC, same model |\n|---|---|---|")
    for sign in pairs[0].alone:
        high, unseen, low = (
            np.array([each.alone[sign][half] for each in group]) for group, half in ((many, 0), (many, 1), (few, 0))
        )
        found[sign] = {"auc": _auc(high, low), "auc_same_model": _auc(high, unseen)}
        print(f"| {sign} | {found[sign]['auc']:.2f} | {found[sign]['auc_same_model']:.2f} |")
    for sign, of in (("labelled beside test images, z", _z), ("the same less other members", _z_less_kin)):
        high, low = (np.array([of(each) for each in group]) for group in (many, few))
        found[sign] = {"auc": _auc(high, low)}
        print(f"| {sign} | {found[sign]['auc']:.2f} | |")
    print(f"\n| seen | pairs | z >= {SURE:g} | noted | zero-shot of those: labelled, test | of the others |")
    print("|---" * 6 + "|")
    for least, most in pairwise(_BINS):
        mine = [each.beside for each in pairs if least <= each.seen < most]
        sure = float(np.mean([each.z >= SURE for each in mine]))
        noted = float(np.mean([each.shows for each in mine]))
        found[f"{least:g} to {most:g}"] = {"pairs": len(mine), "sure": sure, "noted": noted}
        cells = " | ".join(_accuracies([each for each in mine if each.shows is shows]) for shows in (True, False))
        print(f"| {least:g} to {most:g} | {len(mine)} | {sure:.3f} | {noted:.3f} | {cells} |")
    return found


def _z(pair: Pair) -> float:
    return pair.beside.z


def _z_less_kin(pair: Pair) -> float:
    return pair.less_kin


def _accuracies(group: Sequence[Memory]) -> str:
    if not group:
        return ""
    return f"{np.mean([each.labelled for each in group]):.2f}, {np.mean([each.test for each in group]):.2f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, help="folder of tasks, each with images.parquet and task.json")
    parser.add_argument("--records", type=Path, required=True, help="folder; what is there is not measured again")
    parser.add_argument("--write", type=Path, help="JSON")
    parser.add_argument("--quick", action="store_true", help="the first task only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.records.mkdir(parents=True, exist_ok=True)
    times, pairs = times_seen(args.tasks), []
    folders = sorted(each for each in args.tasks.iterdir() if (each / "task.json").is_file())
    for folder in folders[:1] if args.quick else folders:
        file = args.records / f"{folder.name}.npz"
        if not file.is_file():
            target = args.records / "targets" / folder.name
            if not target.exists():
                classes = len(json.loads((folder / "task.json").read_text("utf-8"))["classes"])
                unseen = folder.name in UNSEEN.split(",")
                make(
                    folder, target, train=max(2, min(16, _IMAGES // classes)), test=_IMAGES, seed=7,
                    every_row=unseen, remembered=not unseen,
                )  # fmt: skip
            np.savez_compressed(file, allow_pickle=False, **record(target, scratch=args.records / "tasks"))
            print(folder.name, flush=True)
        with np.load(file) as arrays:
            pairs += pairs_of(folder.name, {name: arrays[name] for name in arrays.files}, times)
    found = report(pairs)
    if args.write:
        args.write.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
