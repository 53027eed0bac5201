"""QUESTION: Which figures did a change move?

PAGE: docs/benchmarks.md
RESULT: none

    python -m benchmarks.compare                    # runs the quick benchmarks again, against benchmarks/results
    python -m benchmarks.compare --renew            # writes what they give now to benchmarks/results
    python -m benchmarks.compare OLD.json NEW.json

Rows of a list are matched by their texts (table, form, ranking, ...), not by their place. A number moved when it
differs by more than ``--tolerance``, half a unit of the third decimal by default. Timings and what else depends on the
machine are left out; a figure that is there only in the new results is no movement.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
RESULTS: Final = Path(__file__).parent / "results"
ROOT: Final = Path(__file__).parents[1]
TOLERANCE: Final = 0.0005
# words in the name of a figure that measures or names the machine
MACHINE: Final = frozenset(
    [
        "seconds",
        "s",
        "cost",
        "mb",
        "mib",
        "bytes",
        "speedup",
        "floor",
        "throughput",
        "growth",
        "clock",
        "machine",
        "overhead",
        "peak",
        "optuna",
        "torch",
    ]
)
BENCH: Final = ("-m", "benchmarks.ranking.compared_rankings", "--truth")
QUICK: Final[Mapping[str, tuple[str, ...]]] = {  # committed result -> arguments of Python; {out} is a folder
    "bench-zeroshot-0.json": (*BENCH, "zeroshot", "--shots", "0", "--write", "{out}/bench.json"),
    "bench-tuned-0.json": (*BENCH, "tuned", "--shots", "0", "--write", "{out}/bench.json"),
    "bench-tuned-4.json": (*BENCH, "tuned", "--shots", "4", "--write", "{out}/bench.json"),
    "bench-tuned-16.json": (*BENCH, "tuned", "--shots", "16", "--write", "{out}/bench.json"),
    "bench-real.json": ("-m", "benchmarks.ranking.real_models", "--write", "{out}/real.json"),
    "conductance-quick.json": (
        "-m",
        "benchmarks.conductance.conductance",
        "--quick",
        "--write",
        "{out}/conductance.json",
    ),
}


def _named(rows: list[Json]) -> Iterator[tuple[str, Json]]:
    """Each entry of a list with a name: its texts and how often they came before, else its place."""
    seen: dict[str, int] = {}
    for place, row in enumerate(rows):
        texts = [value for value in row.values() if isinstance(value, str)] if isinstance(row, dict) else []
        name = ", ".join(texts) or str(place)
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} #{seen[name]}", row


def quality(found: Json) -> Json:
    """Return a result without the figures that measure or name the machine."""
    if isinstance(found, dict):
        return {key: quality(value) for key, value in found.items() if MACHINE.isdisjoint(re.split(r"[_\W]+", key))}
    return [quality(each) for each in found] if isinstance(found, list) else found


def figures(found: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float | None]]:
    """Yield each number (None for null) with the path to it.

    Args:
        found: decoded JSON.
        path: where it stands.
    """
    if isinstance(found, dict):
        for key, value in found.items():
            yield from figures(value, (*path, key))
    elif isinstance(found, list):
        for name, value in _named(found):
            yield from figures(value, (*path, name))
    elif found is None or isinstance(found, int | float):
        yield " / ".join(path), None if found is None else float(found)


def moved(old: Json, new: Json, *, tolerance: float = TOLERANCE) -> list[str]:
    """One line for each figure of ``old`` that is another one in ``new`` or not there.

    Args:
        old: the committed result.
        new: the result to compare.
        tolerance: largest difference that is rounding.
    """
    now = dict(figures(quality(new)))
    lines = []
    for name, before in figures(quality(old)):
        after = now.get(name)
        if name not in now:
            lines.append(f"{name}: {before} is gone")
        elif before is None or after is None:
            if before is not after:
                lines.append(f"{name}: {before} -> {after}")
        elif not (abs(before - after) <= tolerance or (math.isnan(before) and math.isnan(after))):
            lines.append(f"{name}: {before} -> {after}")
    return lines


def rerun() -> Iterator[tuple[str, Json]]:
    """Run each quick benchmark: its file in benchmarks/results, and what it gives now."""
    for name, arguments in QUICK.items():
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, *(each.format(out=out) for each in arguments)]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - the commands above
            (made,) = Path(out).glob("*.json")
            yield name, json.loads(made.read_text("utf-8"))


def report(name: str, old: Json, new: Json, *, tolerance: float) -> bool:
    """Print what moved and return whether anything did."""
    lines = moved(old, new, tolerance=tolerance)
    count = sum(1 for _ in figures(quality(old)))
    print(f"{name}: {len(lines)} of {count} figures moved", *lines, sep="\n    ", flush=True)
    return bool(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE", help="two results; default: run the quick ones")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--renew", action="store_true", help="write the new results instead of comparing them")
    args = parser.parse_args()
    if len(args.files) not in (0, 2):
        parser.error(f"two files or none, but got {len(args.files)}")
    if args.files:
        old, new = (json.loads(each.read_text("utf-8")) for each in args.files)
        sys.exit(int(report(args.files[1].name, old, new, tolerance=args.tolerance)))
    failed = False
    for name, new in rerun():
        if args.renew:
            (RESULTS / name).write_text(json.dumps(quality(new), indent=1) + "\n", "utf-8")
        else:
            old = json.loads((RESULTS / name).read_text("utf-8"))
            failed = report(name, old, new, tolerance=args.tolerance) or failed
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
