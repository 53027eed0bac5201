"""QUESTION: What do methods of tuning reach on real weights, and does the ranking foresee it?

PAGE: docs/results/real-models.md
RESULT: none

Ten models of open_clip, ten public data sets, the methods of tuning, 16 and 4 labels a class. It needs the weights and
the images, from their hosts or a mirror. A later call with the same folder goes on; send the folder to the project.

    python -m benchmarks.tuning.real_campaign --out DIR --device cuda --hours 4
    python -m benchmarks.tuning.real_campaign --out DIR --hub http://localhost:8000 --models ... --sets FOLDER,FOLDER

DIR/records holds one JSON file a fit, DIR/README.md the tables, DIR/page.html tables and pictures. Each fit is the
default trial of its method on the labelled images, 1,000 others are the test. The ranking sees the labelled images
only. Fits go from the smallest model to the largest, data set by data set, so that a short campaign compares methods.
"""

from __future__ import annotations

import argparse
import html
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import matplotlib as mpl
import numpy as np
import psutil
import torch
from matplotlib import pyplot as plt
from torch.utils.data import Dataset, Subset
from torchvision import datasets as published

import vlmsel_auto
from benchmarks.common import write_json
from vlmsel_auto.cache import Store
from vlmsel_auto.library.published import datasets, zero_shot
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.ranking.agreement import agreement
from vlmsel_auto.records import Candidate, Task
from vlmsel_auto.tasks.datasets import write_dataset
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning.methods import METHODS
from vlmsel_auto.tuning.recipes import recipe_of
from vlmsel_auto.tuning.runner import Trial, TrialRunner


class Images(Protocol):
    """Pairs of image and label, as torchvision's data sets are."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> tuple[object, int]: ...


MODELS = (
    "MobileCLIP2-S0/dfndr2b", "RN50/openai", "ViT-B-32/laion2b_s34b_b79k", "EVA02-B-16/merged2b_s8b_b131k",
    "ViT-B-16/openai", "ViT-B-16-SigLIP/webli", "convnext_base_w/laion2b_s13b_b82k", "RN50x16/openai",
    "ViT-L-14/datacomp_xl_s13b_b90k", "ViT-SO400M-14-SigLIP/webli",
)  # fmt: skip
SETS: Mapping[str, tuple[Callable[..., Images], tuple[Mapping[str, str | bool], Mapping[str, str | bool]], str]] = {
    # torchvision's class, arguments of both splits, column of the published zero-shot accuracies
    "dtd": (published.DTD, ({"split": "train"}, {"split": "test"}), "Describable Textures"),
    "eurosat": (published.EuroSAT, ({}, {}), "EuroSAT"),
    "aircraft": (published.FGVCAircraft, ({"split": "trainval"}, {"split": "test"}), "FGVC Aircraft"),
    "pets": (published.OxfordIIITPet, ({"split": "trainval"}, {"split": "test"}), "Oxford-IIIT Pet"),
    "flowers": (published.Flowers102, ({"split": "train"}, {"split": "test"}), "Oxford Flowers-102"),
    "food": (published.Food101, ({"split": "train"}, {"split": "test"}), "Food-101"),
    "cifar100": (published.CIFAR100, ({"train": True}, {"train": False}), "CIFAR-100"),
    "caltech": (published.Caltech101, ({}, {}), "Caltech-101"),
    "stl10": (published.STL10, ({"split": "train"}, {"split": "test"}), "STL-10"),
    "sst2": (published.RenderedSST2, ({"split": "train"}, {"split": "test"}), "Rendered SST2"),
}
LABELS = (16, 4)
TEST = 1_000
Record = Mapping[str, str | int | float | None]


def subset(pairs: Images, *, each: int, taken: set[int], seed: int) -> Subset[tuple[object, int]]:
    """Images in random order, at most so many a class, none of those taken; what was drawn is taken."""
    found: dict[int, list[int]] = {label: [] for label in range(classes_of(pairs))}
    for place in np.random.default_rng(seed).permutation(len(pairs)).tolist():
        if place not in taken and len(same := found[int(pairs[place][1])]) < each:
            same.append(place)
            taken.add(place)
            if all(len(one) == each for one in found.values()):
                break
    drawn = sorted(place for same in found.values() for place in same)
    return Subset(cast("Dataset[tuple[object, int]]", pairs), drawn)


def classes_of(pairs: Images) -> int:
    """How many classes a data set of torchvision names."""
    return len(getattr(pairs, "classes", ()) or getattr(pairs, "categories", ()))


def folder_of(name: str, labels: int, *, out: Path) -> Path:
    """The task folder of a data set; a folder that is named instead is taken as it is."""
    if name not in SETS:
        return Path(name)
    folder = out / "tasks" / f"{name}-{labels}"
    if not folder.exists():
        made, (train, test), _ = SETS[name]
        pairs, others = (made(str(out / "data"), download=True, **given) for given in (train, test))
        taken: set[int] = set()
        few = subset(pairs, each=labels, taken=taken, seed=labels)
        each = math.ceil(TEST / classes_of(others))
        rest = subset(others, each=each, taken=taken if train == test else set(), seed=0)
        write_dataset({"train": few, "test": rest}, folder=folder)
    return folder


def fit(candidate: Candidate, task: Task, method: str, *, out: Path, device: torch.device, epochs: int) -> Record:
    """The default trial of a method: what it reaches, takes and was."""
    runner = TrialRunner(
        task=task, candidates=[candidate], load=lambda one: zoo.load(one, device=device), store=Store(out / "store"),
        workdir=out / "trials", method_names=[method], device=device,
    )  # fmt: skip
    spec = runner.spec(method, candidate.id, DEFAULT)
    if spec.epochs and epochs:
        spec = replace(spec, epochs=epochs)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    begun, told = time.monotonic(), list[str]()
    done = runner.attempt(Trial(number=0, spec=spec), sink=lambda event: told.append(getattr(event, "text", "")))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss
    return {
        "test": done.result.test, "validation": done.result.validation, "seconds": time.monotonic() - begun,
        "gigabytes": peak / 1e9, "problem": done.result.reason, "notices": "; ".join(filter(None, told)),
        "trains": recipe_of(candidate).trains, "rate": spec.settings.get("learning_rate"), "epochs": spec.epochs,
    }  # fmt: skip


def campaign(args: argparse.Namespace) -> None:
    """All fits that there is time for; finished ones are not repeated."""
    device, records, deadline = torch.device(args.device), args.out / "records", time.monotonic() + 3600 * args.hours
    methods = [each.name for each in METHODS]
    for labels in args.labels:
        for name in args.sets:
            folder = folder_of(name, labels, out=args.out)
            stem = f"{Path(name).name}-{labels}"
            candidates = list(resolve(list(args.models)))
            candidates.sort(key=lambda each: each.params or 0)
            if not (records / f"{stem}.ranking.json").exists():
                ranking = vlmsel_auto.rank(folder, candidates=list(args.models), device=args.device)
                write_json(
                    records / f"{stem}.ranking.json", {"order": ranking.order, "failures": dict(ranking.failures)}
                )
            task: Task | None = None
            for candidate in candidates:
                for method in methods:
                    file = records / f"{stem}.{candidate.id.replace('/', ' ')}.{method}.json"
                    if file.exists():
                        continue
                    if time.monotonic() > deadline:
                        print("the time is over: the same command goes on")
                        return
                    if task is None:
                        views = tuple(dict.fromkeys(each.view for each in candidates))
                        work = args.out / "work" / stem
                        task = load_task(folder, TaskOptions(needs_val=True), views=views, workdir=work)
                    found = fit(candidate, task, method, out=args.out, device=device, epochs=args.epochs)
                    key = {"set": Path(name).name, "labels": labels, "model": candidate.id, "method": method}
                    write_json(file, {**key, **found})
                    print(stem, candidate.id, method, found["test"], found["problem"], flush=True)


def tables(out: Path) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, head and rows of each table."""
    files = sorted((out / "records").glob("*.json"))
    found = [cast("Record", json.loads(file.read_text())) for file in files if not file.stem.endswith(".ranking")]
    methods = [each.name for each in METHODS if any(one["method"] == each.name for one in found)]
    models = list(dict.fromkeys(str(one["model"]) for one in found))

    def mean(field: str, **where: object) -> str:
        chosen = [one for one in found if all(one[name] == value for name, value in where.items())]
        values = [float(value) for one in chosen if (value := one[field]) is not None]
        return f"{np.mean(values):.3f}" if values else "-"

    for labels in sorted({int(str(one["labels"])) for one in found}):
        for field, title in (("test", "accuracy"), ("seconds", "seconds a fit"), ("gigabytes", "memory, GB")):
            rows = [
                [name, *(mean(field, model=name, method=each, labels=labels) for each in methods)] for name in models
            ]
            yield f"{labels} labels a class: {title}, mean of data sets", ["model", *methods], rows
    columns = {name: datasets().index(column) for name, (_, _, column) in SETS.items() if column in datasets()}
    yield (
        "Zero-shot, ours and published",
        ["model", *columns],
        [
            [name, *(f"{mean('test', model=name, set=each, method='zero_shot')}, {zero_shot([name])[0, at]:.3f}"
                     for each, at in columns.items())]
            for name in models
        ],
    )  # fmt: skip
    rows = []
    for file in (one for one in files if one.stem.endswith(".ranking")):
        stem = file.stem.removesuffix(".ranking")
        order = [name for name in json.loads(file.read_text())["order"] if name in models]
        best = {
            name: max((float(value) for one in found if one["model"] == name and (value := one["test"]) is not None
                       and f"{one['set']}-{one['labels']}" == stem), default=np.nan)
            for name in order
        }  # fmt: skip
        actual = np.array([best[name] for name in order])
        if len(order) > 1 and np.isfinite(actual).all():
            said = agreement(-np.arange(len(order), dtype=np.float64), actual)
            rows.append([stem, order[0], order[int(actual.argmax())], f"{said.tau_b}", f"{said.top1_loss}"])
    yield "Ranking", ["task", "predicted first", "best", "tau b", "lost by the first"], rows
    fields = ["set", "labels", "model", "method", "problem"]
    yield "Failed or cut short", fields, [[str(one[name]) for name in fields] for one in found if one["problem"]]


def write_page(out: Path) -> None:
    """README.md, and page.html with a picture of the fits."""
    mpl.use("agg")
    made = list(tables(out))
    lines, parts = ["# Campaign on real weights"], []
    for title, head, rows in made:
        cells = [head, ["---"] * len(head), *rows]
        lines += [f"\n## {title}\n", *(f"| {' | '.join(row)} |" for row in cells)]
        told = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}' for cell in row)}" for row in rows)
        parts.append(f"<h2>{html.escape(title)}</h2><table><tr>{''.join(f'<th>{each}' for each in head)}{told}</table>")
    _, head, rows = made[0]
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for place, method in enumerate(head[1:], start=1):
        values = [np.nan if row[place] == "-" else float(row[place]) for row in rows]
        axes.plot([row[0] for row in rows], values, "o", label=method)
    axes.set_ylabel("test accuracy")
    axes.tick_params(axis="x", rotation=30)
    axes.legend()
    figure.savefig(out / "methods.svg")
    plt.close(figure)
    (out / "README.md").write_text("\n".join(lines) + "\n")
    style = "<style>body{font:15px sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:left}</style>"
    top = f"<!doctype html><meta charset=utf-8><title>Campaign</title>{style}<h1>Campaign on real weights</h1>"
    (out / "page.html").write_text(f"{top}<img src=methods.svg alt='accuracy by model and method'>{''.join(parts)}")


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of records and tables; what is there stays")
    parser.add_argument("--hub", help="address of a mirror of the model hub; default: HF_ENDPOINT, or the hub itself")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--epochs", type=int, default=0, help="of each fit; default: as the method has them")
    parser.add_argument("--models", type=lambda text: text.split(","), default=MODELS, help="comma list")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=tuple(SETS), help="names, or task folders")
    parser.add_argument("--labels", type=lambda text: [int(each) for each in text.split(",")], default=LABELS)
    args = parser.parse_args(given)
    if args.hub and os.environ.get("HF_ENDPOINT") != args.hub:  # read when huggingface_hub is imported
        again = [sys.executable, "-m", "benchmarks.tuning.real_campaign", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "HF_ENDPOINT": args.hub})  # noqa: S606 - ourselves
    (args.out / "records").mkdir(parents=True, exist_ok=True)
    campaign(args)
    write_page(args.out)
    print(args.out / "page.html")


if __name__ == "__main__":
    main()
