"""QUESTION: How long is a first-time user's way from nothing to a model?

PAGE: docs/results/speed.md
RESULT: benchmarks/results/first-time.json

    python -m benchmarks.search.first_time --package dist/vlmsel_auto-0.1.0-py3-none-any.whl
    python -m benchmarks.search.first_time --package WHEEL --way uvx --uv .venv/bin/uv --constraints constraints.txt
    python -m benchmarks.search.first_time --package WHEEL --write benchmarks/results/first-time.json

Ways: ``pip`` (a virtual environment, pip, the demo, a prediction), ``uvx`` and ``pipx`` (which keep the environment
themselves). Megabytes are what lies on the disk afterwards, caches included, each file counted once.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.common import command_line

SEARCHED: Final = "demo/search/model"
PASSED_ON: Final = ("LANG", "SSL_CERT_FILE", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")


@dataclass(frozen=True, kw_only=True)
class Way:
    """Command lines in the order in which a person types them."""

    name: str
    commands: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a command took."""

    command: str
    seconds: float
    processor_seconds: float  # of all processes: says more where others use the machine
    megabytes: float  # that it added to the disk


def ways(*, package: str, constraints: str | None, budget: str, python: str, uv: str, pipx: str) -> dict[str, Way]:
    """All that are known, by name."""
    held = f" -c {shlex.quote(constraints)}" if constraints else ""
    demo = f"demo --time-budget {budget} --quiet"
    predict = f"predict {SEARCHED} demo/images -o predictions.csv --quiet"
    uvx = f"{uv} tool run --python {python}{held} --from {package} vlmsel-auto"
    run = f"{pipx} run --python {python} --pip-args='{held.strip()}' --spec {package} vlmsel-auto"
    found = (
        Way(name="pip", commands=(
            f"{python} -m venv env", f"env/bin/pip install -q{held} {package}", f"env/bin/vlmsel-auto {demo}",
            f"env/bin/vlmsel-auto {predict}",
        )),
        Way(name="uvx", commands=(f"{uvx} {demo}", f"{uvx} {predict}")),
        Way(name="pipx", commands=(f"{run} {demo}", f"{run} {predict}")),
    )  # fmt: skip
    return {way.name: way for way in found}


def megabytes(folder: Path) -> float:
    """What a folder takes on the disk; a file with several names counts once."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            stat = (Path(place) / name).lstat()
            found[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(found.values()) / 1e6


def processor_seconds() -> float:
    """Of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def go(way: Way, folder: Path) -> list[Step]:
    """Type the commands of a way in an empty folder that is also HOME.

    Raises:
        SystemExit: a command failed.
    """
    kept = {name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith(("PIP_", "UV_"))}
    environment = {**kept, "HOME": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(folder)}
    steps, before = [], megabytes(folder)
    for command in way.commands:
        print(f"$ {command}", flush=True)
        began, worked = time.perf_counter(), processor_seconds()
        done = subprocess.run(shlex.split(command), cwd=folder, env=environment, check=False)  # noqa: S603 - of this file
        if done.returncode:
            raise SystemExit(f"the way must work, but got exit status {done.returncode} of: {command}")
        seconds, now = time.perf_counter() - began, megabytes(folder)
        steps.append(Step(command=command, seconds=round(seconds, 1), megabytes=round(now - before, 1),
                          processor_seconds=round(processor_seconds() - worked, 1)))  # fmt: skip
        before = now
    if not (folder / SEARCHED / "head.safetensors").is_file():
        raise SystemExit(f"the way must end with a model, but got none in {SEARCHED}")
    return steps


def main() -> None:
    """Go the ways, print a table, write JSON."""
    parser = command_line(__doc__)
    parser.add_argument("--package", required=True, help="a wheel, or the name of a package")
    parser.add_argument("--way", action="append", choices=("pip", "uvx", "pipx"), help="default: pip")
    parser.add_argument("--constraints", help="constraints.txt, to have the tested versions")
    parser.add_argument("--budget", default="60s", help="what the demo's search may take")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--uv", default="uv")
    parser.add_argument("--pipx", default="pipx")
    parser.add_argument("--place", type=Path, help="folder for what is made, on a disk with several GB")
    told = parser.parse_args()
    package = str(Path(told.package).absolute()) if Path(told.package).is_file() else told.package
    constraints = str(Path(told.constraints).absolute()) if told.constraints else None
    known = ways(package=package, constraints=constraints, budget=told.budget, python=told.python, uv=told.uv,
                 pipx=told.pipx)  # fmt: skip
    gone: dict[str, list[Step]] = {}
    for name in told.way or ["pip"]:
        with tempfile.TemporaryDirectory(prefix="first-time-", dir=told.place) as folder:
            gone[name] = go(known[name], Path(folder))
    print("\n| way | commands | minutes | of the processor | MB |\n|---|---|---|---|---|")
    for name, steps in gone.items():
        minutes = sum(each.seconds for each in steps) / 60
        worked = sum(each.processor_seconds for each in steps) / 60
        size = sum(each.megabytes for each in steps)
        print(f"| {name} | {len(steps)} | {minutes:.1f} | {worked:.1f} | {size:.0f} |")
    if told.write:
        machine = {"python": platform.python_version(), "cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1)}
        shown = {
            name: [{**asdict(each), "command": re.sub(r"(?<![^\s'])/\S*/", "", each.command)} for each in steps]
            for name, steps in gone.items()
        }
        told.write.write_text(json.dumps({"machine": machine, "budget": told.budget, "ways": shown}, indent=1) + "\n")


if __name__ == "__main__":
    main()
