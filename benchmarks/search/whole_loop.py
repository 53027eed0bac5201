"""QUESTION: How fast is what a user runs: import, --help, rank (cold and warm), demo?

PAGE: docs/results/speed.md
RESULT: benchmarks/results/whole-loop.json

python -m benchmarks.search.whole_loop             all of it, some minutes
python -m benchmarks.search.whole_loop --quick     without the demo, under a minute on two quiet cores
python -m benchmarks.search.whole_loop --write benchmarks/results/whole-loop.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

COMMAND = (sys.executable, "-m", "vlmsel_auto")
IMPORT_GOAL = 0.1  # seconds above python's own start


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command to measure and what it may take."""

    what: str
    command: tuple[str, ...]
    repeats: int = 1
    seconds: float | None = None  # goal
    peak_mb: float | None = None  # goal


def write_digits(folder: Path) -> Path:
    """Handwritten digits as a task folder, by another process: a child's peak counts its parent's."""
    code = "import sys, pathlib; from vlmsel_auto.tasks import digits; "
    code += "print(digits.write_digits(pathlib.Path(sys.argv[1])).task)"
    done = subprocess.run((sys.executable, "-c", code, folder), check=True, capture_output=True, text=True)  # noqa: S603
    return Path(done.stdout.strip())


def run(command: tuple[str, ...], *, home: Path, repeats: int = 1) -> tuple[float, float]:
    """Median seconds and largest resident memory in MB of a command."""
    environment = {
        **os.environ,
        "VLMSEL_CACHE": str(home / "cache"),
        "VLMSEL_LIBRARY": str(home / "library.safetensors"),
    }
    seconds, peaks = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - commands of this file
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home
        )
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
        seconds.append(time.perf_counter() - began)
        peaks.append(usage.ru_maxrss / 1024)
    return statistics.median(seconds), max(peaks)


def jobs(digits: Path, *, quick: bool) -> list[Job]:
    """In the order in which they run: the second ranking finds the first one's measurements."""
    rank = (*COMMAND, "rank", str(digits), "--quiet")
    found = [
        Job(what="python -c pass", command=(sys.executable, "-c", "pass"), repeats=5),
        Job(what="import vlmsel_auto", command=(sys.executable, "-c", "import vlmsel_auto"), repeats=5),
        Job(what="vlmsel-auto --help", command=(*COMMAND, "--help"), repeats=5, seconds=0.4),
        Job(what="rank, 20 candidates, cold", command=rank, seconds=90.0),
        Job(what="rank, 20 candidates, warm", command=rank, seconds=10.0),
    ]
    return found if quick else [*found, Job(what="demo", command=(*COMMAND, "demo"), seconds=240.0, peak_mb=3000.0)]


def main() -> None:
    """Measure and print; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the demo")
    parser.add_argument("--write", type=Path, help="JSON file to write")
    options = parser.parse_args()
    figures: dict[str, dict[str, float | None]] = {}
    took: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        digits = write_digits(home / "images")
        for job in jobs(digits, quick=options.quick):
            seconds, peak = run(job.command, home=home, repeats=job.repeats)
            took[job.what] = seconds
            figures[job.what] = {
                "seconds": round(seconds, 3),
                "seconds_goal": job.seconds,
                "peak_mb": round(peak),
                "peak_mb_goal": job.peak_mb,
            }
            goals = ((job.seconds, "s"), (job.peak_mb, "MB"))
            goal = ", ".join(f"{value:g} {unit}" for value, unit in goals if value is not None)
            print(f"{job.what:28} {seconds:8.2f} s {peak:7.0f} MB   goal {goal or '-'}", flush=True)
    added = took["import vlmsel_auto"] - took["python -c pass"]
    print(f"{'import alone':28} {added:8.2f} s              goal {IMPORT_GOAL:g} s")
    figures["import alone"] = {"seconds": round(added, 3), "seconds_goal": IMPORT_GOAL}
    record = {
        "benchmark": "whole_loop",
        "quick": options.quick,
        "machine": {"name": platform.machine(), "cores": len(os.sched_getaffinity(0)), "torch": version("torch")},
        "figures": figures,
    }
    if options.write is not None:
        options.write.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
