"""QUESTION: What do the parts of a tower that can be trained reach, and what memory and time do they take?

PAGE: docs/results/tuning.md
RESULT: none

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 16 --seed 5 --only ...
    python -m benchmarks.tuning.parts TARGETS --records RECORDS --write ...
    python -m benchmarks.tuning.parts TARGETS --records RECORDS --quick
    python -m benchmarks.tuning.parts --towers ViT-B-32,RN50 --records RECORDS --write ...

Accuracy: of each target the three candidates with the lowest log loss of their probe, near (all of the mini zoo) and
far (those that know little of its domain, `fresh_targets`); each part is trained by its method's default on all
labelled images. Towers: open_clip's architectures with random weights, a fresh process each, one thread, steps of
eight images: seconds a step, and bytes of resident memory beyond those before the first step, beside what the check of
memory says.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks.common import command_line, folders, print_head, print_row, standard_error, write_json
from benchmarks.screening.real_costs import write_model
from benchmarks.tuning.fits_worth import on_all, said, work_of
from benchmarks.tuning.fresh_targets import far_candidates
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo, resolve
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning import finetune, memory, probe
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.methods import METHODS, USUAL
from vlmsel_auto.tuning.runner import Trial, TrialRunner

PARTS = ("finetune", *(each.name for each in METHODS if each not in USUAL))
LEADERS, BATCH = 3, 8
Reached = Mapping[str, Sequence[float]]  # accuracy, or seconds, of each leader


def measure_target(target: Path, *, far: bool, scratch: Path) -> dict[str, list[float]]:
    """Test accuracy of each leader by each part and by its probe, and seconds by "PART seconds"."""
    pool = far_candidates(target.name) if far else mini_zoo()
    task = load_task(
        target, TaskOptions(needs_val=True), views=tuple(dict.fromkeys(each.view for each in pool)), workdir=scratch
    )
    truth, probes = task.labels[np.sort(task.test)], []
    for candidate in pool:
        outcome = probe.run(work_of(task, candidate, scratch=scratch))
        held, _ = said(outcome)
        loss = -float(np.log(np.exp(held)[np.arange(len(held)), task.labels[splits(task).labelled]]).mean())
        probes.append((loss, candidate, outcome.test or 0.0))
    found: dict[str, list[float]] = {"head": []}
    for _, candidate, of_head in sorted(probes, key=lambda each: each[0])[:LEADERS]:
        found["head"].append(of_head)
        runner = TrialRunner(
            task=task, candidates=[candidate], load=zoo.load, store=Store(scratch / "embeddings"), workdir=scratch,
            method_names=PARTS,
        )  # fmt: skip
        for part in PARTS:
            work = on_all(work_of(task, candidate, scratch=scratch))
            work = replace(work, spec=runner.spec(part, candidate.id, DEFAULT))
            begun = time.monotonic()
            _, of_test = said(finetune.run(work))
            found.setdefault(f"{part} seconds", []).append(time.monotonic() - begun)
            found.setdefault(part, []).append(float((of_test.argmax(axis=1) == truth).mean()))
    return found


def table(kind: str, records: Mapping[str, Reached]) -> dict[str, dict[str, float]]:
    """Print what parts reach on far or near targets, and return it."""
    print(f"\n{kind}: {', '.join(records)}")
    print_head("trained", "accuracy", "to the tower", "worst", "seconds")
    whole = np.array([np.mean(each[PARTS[0]]) for each in records.values()])
    result = {}
    for name in ("head", *PARTS):
        mine = np.array([np.mean(each[name]) for each in records.values()])
        gaps = 100 * (mine - whole)
        took = float(np.mean([each.get(f"{name} seconds", [0.0]) for each in records.values()]))
        print_row(
            name, f"{mine.mean():.3f}", f"{gaps.mean():+.1f} ({standard_error(gaps):.1f})", f"{gaps.min():+.1f}",
            f"{took:.1f}",
        )  # fmt: skip
        result[name] = {
            "accuracy": round(float(mine.mean()), 4), "points": round(float(gaps.mean()), 2),
            "se": round(standard_error(gaps), 2), "worst": round(float(gaps.min()), 2), "seconds": round(took, 2),
        }  # fmt: skip
    return result


def tune_few(place: Path, part: str) -> dict[str, float]:
    """Two epochs of two steps on noise: GB predicted and measured beyond those before the first step, seconds."""
    told: list[tuple[float, float]] = []  # predicted, resident then
    process, peak, done = psutil.Process(), [0.0], threading.Event()
    needed = memory.bytes_needed

    def spy(*given: object, **named: object) -> float:
        told.append((needed(*given, **named), process.memory_info().rss))  # type: ignore[arg-type] # passed on
        peak[0] = 0.0  # loading takes the weights twice
        return told[-1][0]

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    vars(finetune)["bytes_needed"] = spy
    (candidate,) = resolve(f"local-dir:{place}")
    with TemporaryDirectory() as name:
        task = load_task(
            _noise(Path(name)), TaskOptions(shots=BATCH), views=(candidate.view,), workdir=Path(name) / "work"
        )
        runner = TrialRunner(
            task=task, candidates=[candidate], load=zoo.load, store=Store(Path(name) / "store"),
            workdir=Path(name) / "trials", method_names=["probe", part],
        )  # fmt: skip
        runner.run(Trial(number=0, spec=runner.spec("probe", candidate.id, DEFAULT)))
        steps: list[float] = []
        spec = replace(runner.spec(part, candidate.id, DEFAULT), epochs=2)
        threading.Thread(target=watch, daemon=True).start()

        def epoch(*_: object) -> bool:
            steps.append(time.monotonic())
            done.set()
            return False

        runner.run(Trial(number=1, spec=spec), report=epoch)
    predicted, before = told[-1]
    return {
        "predicted": predicted / 1e9, "measured": (peak[0] - before) / 1e9, "resident": peak[0] / 1e9,
        "seconds": (steps[1] - steps[0]) / 2,
    }  # fmt: skip


def _noise(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", BATCH), ("val", 1), ("test", 1)):
        for label in range(2):
            folder = root / "task" / split / f"class {label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root / "task"


def towers(names: Sequence[str], *, records: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Each architecture by each part, in processes of their own."""
    print_head("tower", "trained", "GB predicted", "GB measured", "GB resident", "seconds a step")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in names:
        place = records / name
        if not place.exists():
            place.mkdir(parents=True)
            subprocess.run([sys.executable, "-m", "benchmarks.tuning.parts", "--make", str(place)], check=True)  # noqa: S603
        for part in PARTS:
            command = [sys.executable, "-m", "benchmarks.tuning.parts", "--one", str(place), "--part", part]
            ran = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ourselves
            if ran.returncode:
                print_row(name, part, ran.stderr.strip().splitlines()[-1])
                continue
            one: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
            found.setdefault(name, {})[part] = {key: round(value, 3) for key, value in one.items()}
            print_row(name, part, *(f"{value:.2f}" for value in one.values()))
    return found


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, quick="the first target")
    parser.add_argument("targets", type=Path, nargs="?", help="folder of task folders, each with train/ and test/")
    parser.add_argument("--records", type=Path, help="folder; what is there is not made again")
    parser.add_argument("--only", default="", help="comma list of targets; default: all")
    parser.add_argument("--towers", default="", help="comma list of open_clip's architectures")
    for one in ("--make", "--one", "--part"):
        parser.add_argument(one, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.make:
        write_model(Path(args.make).name, Path(args.make))
        return
    if args.one:
        print(json.dumps(tune_few(Path(args.one), args.part)))
        return
    args.records.mkdir(parents=True, exist_ok=True)
    if args.towers:
        write_json(args.write, towers(args.towers.split(","), records=args.records))
        return
    result = {}
    for kind in ("near", "far"):
        records = {}
        for target in folders(args.targets, only=args.only, quick=args.quick):
            file = args.records / f"{target.name}.{kind}.json"
            if not file.exists():
                write_json(file, measure_target(target, far=kind == "far", scratch=args.records / "tasks" / kind))
            records[target.name] = json.loads(file.read_text())
        result[kind] = table(kind, records)
    write_json(args.write, result)


if __name__ == "__main__":
    main()
