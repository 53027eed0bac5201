"""Speed and memory of what a user runs: import, --help, rank (cold and warm), demo; each in a process of its own.

python benchmarks/whole_loop.py             all of it, some minutes
python benchmarks/whole_loop.py --quick     without the demo, under a minute on two quiet cores
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.tasks.digits import write_digits

COMMAND = (sys.executable, "-m", "vlmsel_auto")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table."""

    what: str
    seconds: float
    peak_mb: float
    goal: str


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


def main() -> None:
    """Measure and print; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the demo")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        digits = write_digits(home / "images").task
        rank = (*COMMAND, "rank", str(digits), "--quiet")
        jobs: list[tuple[str, tuple[str, ...], int, str]] = [
            ("python -c pass", (sys.executable, "-c", "pass"), 3, "-"),
            ("import vlmsel_auto, with python", (sys.executable, "-c", "import vlmsel_auto"), 3, "0.1 s above python"),
            ("vlmsel-auto --help", (*COMMAND, "--help"), 3, "0.4 s"),
            ("rank, 20 candidates, cold", rank, 1, "90 s"),
            ("rank, 20 candidates, warm", rank, 1, "10 s"),
        ]
        if not options.quick:
            jobs.append(("demo", (*COMMAND, "demo"), 1, "240 s, 3000 MB"))
        figures = []
        for what, command, repeats, goal in jobs:
            seconds, peak = run(command, home=home, repeats=repeats)
            figures.append(Figure(what=what, seconds=seconds, peak_mb=peak, goal=goal))
            print(f"{what:34} {seconds:8.2f} s {peak:7.0f} MB   goal {goal}", flush=True)
    print(json.dumps({one.what: {"seconds": round(one.seconds, 3), "peak_mb": round(one.peak_mb)} for one in figures}))


if __name__ == "__main__":
    main()
