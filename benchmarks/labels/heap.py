"""QUESTION: What time and memory does an unlabelled pool of 50,000 images take?

PAGE: docs/results/speed.md
RESULT: benchmarks/results/heap.json

    python -m benchmarks.labels.heap TASKS --write benchmarks/results/heap.json
    python -m benchmarks.labels.heap TASKS --images 2000 --only rank

The heap holds the images of TASKS (folders with images.parquet and task.json) in turn, in their own formats and sizes,
in each round moved on by one more pixel, so that files are no copies; its classes are the names of the tasks. Each
command has a process of its own; the first finds nothing kept, the others what those before them kept. Memory is the
largest sum over the process and its children, screened twenty times a second. Processor seconds are those of all
threads: on a machine that others use they say more than the time that passed. What is imported is compiled beforehand,
as pip does when it installs.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from subprocess import STDOUT
from typing import Final

import numpy as np
import psutil
import pyarrow.parquet
from PIL import Image

from benchmarks.common import command_line, write_json
from benchmarks.search.first_time import processor_seconds

_IMAGES: Final = 50_000
_EVERY: Final = 0.05  # seconds between looks at the memory
_VERBS: Final = {"rank": "rank", "rank, the second time": "rank", "label": "label", "search": "search"}
_COMPILED: Final = "import open_clip, sklearn.mixture, vlmsel_auto.pipeline.run"
_STAGE: Final = re.compile(r"\] (\w+): finished in ([^,\n]+)")
_EMBEDDED: Final = re.compile(r"candidates embed ([\d,]+) images?")
_WHY: Final = re.compile(r"files were screened, (.*?--images[^)]*\))")


@dataclass(frozen=True, kw_only=True)
class Took:
    """What a command took."""

    command: str
    seconds: float
    processor_seconds: float
    peak_mb: float
    images: int | None  # that were embedded; None: the command does not say
    why: str  # so many; empty: likewise
    stages: Mapping[str, str]  # name -> duration, as the command tells


def images_of(tasks: Path) -> list[bytes]:
    """All images of all tasks, encoded."""
    found: list[bytes] = []
    for file in sorted(tasks.glob("*/images.parquet")):
        column = pyarrow.parquet.read_table(file, columns=["image"])["image"].to_pylist()
        found += [image["bytes"] if isinstance(image, dict) else image for image in column]
    return found


def moved(image: bytes, *, by: int) -> tuple[bytes, str]:
    """The image ``by`` pixels further right, what leaves it coming back on the left, and the name of its format."""
    with Image.open(io.BytesIO(image)) as opened:
        kind = str(opened.format)
        if not by:
            return image, kind
        pixels = np.roll(np.asarray(opened.convert("RGB")), by, axis=1)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, quality=95)
    return stream.getvalue(), kind


def write_heap(tasks: Path, folder: Path, *, images: int) -> None:
    """Write so many image files into one folder, in an order drawn by chance."""
    known = images_of(tasks)
    folder.mkdir()
    for number, at in enumerate(np.random.default_rng(0).permutation(images).tolist()):
        data, kind = moved(known[at % len(known)], by=at // len(known))
        (folder / f"{number:05d}.{kind.lower()}").write_bytes(data)


def run(name: str, *, heap: Path, classes: str, home: Path) -> Took:
    """Type a command and watch it.

    Raises:
        SystemExit: it failed.
    """
    command = (sys.executable, "-m", "vlmsel_auto", _VERBS[name], str(heap), "--classes", classes)
    environment = {**os.environ, "HOME": str(home), "VLMSEL_CACHE": str(home / "cache")}
    file, peak = home / "told.txt", 0
    began, worked = time.perf_counter(), processor_seconds()
    with file.open("w") as stream:
        process = psutil.Popen(command, env=environment, cwd=home, stdout=stream, stderr=STDOUT)
        while process.poll() is None:
            peak = max(peak, _memory(process))
            time.sleep(_EVERY)
    seconds, lines = time.perf_counter() - began, file.read_text("utf-8")
    if process.returncode:
        raise SystemExit(f"the command must end well, but got {process.returncode} of {name}:\n{lines}")
    embedded, why = _EMBEDDED.search(lines), _WHY.search(" ".join(lines.split()))
    return Took(
        command=name,
        seconds=round(seconds, 1),
        processor_seconds=round(processor_seconds() - worked, 1),
        peak_mb=round(peak / 1e6),
        images=int(embedded[1].replace(",", "")) if embedded else None,
        why=why[1] if why else "",
        stages=dict(_STAGE.findall(lines)),
    )


def _memory(process: psutil.Process) -> int:
    """Bytes that a process and its children hold now."""
    held = 0
    with suppress(psutil.Error):  # it has just ended
        for each in (process, *process.children(recursive=True)):
            held += each.memory_info().rss
    return held


def main() -> None:
    """Make the heap, run the commands, print a table; the last line is one JSON object."""
    parser = command_line(__doc__)
    parser.add_argument("tasks", type=Path, help="folder of tasks, each with images.parquet")
    parser.add_argument("--images", type=int, default=_IMAGES, help="files; default: %(default)s")
    parser.add_argument("--only", action="append", choices=tuple(_VERBS), help="default: all, in this order")
    parser.add_argument("--heap", type=Path, help="folder for the files, kept for the next time; default: none is kept")
    told = parser.parse_args()
    found = []
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    psutil.Popen((sys.executable, "-c", _COMPILED)).wait()
    with tempfile.TemporaryDirectory(prefix="heap-") as scratch:
        home, heap = Path(scratch), told.heap or Path(scratch) / "images"
        if not heap.exists():
            write_heap(told.tasks, heap, images=told.images)
        classes = ", ".join(sorted(each.parent.name.replace("_", " ") for each in told.tasks.glob("*/images.parquet")))
        print("| command | seconds | of the processor | MB | images | stages |\n|---|---|---|---|---|---|")
        for name in told.only or _VERBS:
            one = run(name, heap=heap, classes=classes, home=home)
            stages = ", ".join(f"{stage} {duration}" for stage, duration in one.stages.items())
            print(f"| {name} | {one.seconds} | {one.processor_seconds} | {one.peak_mb} | {one.images} | {stages} |",
                  flush=True)  # fmt: skip
            found.append(one)
    machine = {"name": platform.machine(), "cores": len(os.sched_getaffinity(0)), "torch": version("torch")}
    machine["threads"] = os.environ.get("OMP_NUM_THREADS", "as many as cores")
    record = {"machine": machine, "files": told.images, "commands": [asdict(each) for each in found]}
    write_json(told.write, record)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
