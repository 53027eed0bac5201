"""QUESTION: How many steps a second does fine-tuning make beside a busy process?

PAGE: docs/results/accuracy.md
RESULT: benchmarks/results/busy-neighbour.json

    python -m benchmarks.search.busy_neighbour --write benchmarks/results/busy-neighbour.json

One mini-zoo tower is trained on noise for some seconds by each way, in turn and in several rounds, alone and beside one
process that computes without end. Ways: all threads, one thread, and as the product does, measured. The environment is
that of the command line (GOMP_SPINCOUNT). Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does, before torch is there

import torch
from torch.nn import functional

from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.threads import Threads, measured_threads

WAYS = ("all threads", "one thread", "measured")
BATCH = 32


@contextmanager
def neighbour(*, there: bool) -> Iterator[None]:
    """A process that computes without end."""
    if not there:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def steps_a_second(candidate: str, *, way: str, seconds: float) -> float:
    """Train for some seconds."""
    torch.manual_seed(0)
    model = zoo.load(resolve(candidate)[0])
    size = model.candidate.view.size
    images, labels = torch.rand(BATCH, 3, size, size), torch.arange(BATCH) % 8
    model.visual.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.visual.parameters(), lr=1e-4)

    def train(threads: Threads | None) -> float:
        begun, steps = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            if threads is not None:
                threads.start()
            optimizer.zero_grad()
            loss = functional.cross_entropy(model.visual(images)[:, :8], labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            steps += 1
            if threads is not None:
                threads.done(BATCH)
        return steps / (time.monotonic() - begun)

    most = torch.get_num_threads()
    if way == "measured":
        with measured_threads(torch.device("cpu")) as threads:
            return train(threads)
    torch.set_num_threads(1 if way == "one thread" else most)
    try:
        return train(None)
    finally:
        torch.set_num_threads(most)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidate", default="ViT-Mi-8-64.all-l")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="JSON")
    args = parser.parse_args()
    rates: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for busy in (False, True):
            with neighbour(there=busy):
                for way in WAYS:
                    rate = steps_a_second(args.candidate, way=way, seconds=args.seconds)
                    rates.setdefault(f"{way}, {'beside one' if busy else 'alone'}", []).append(rate)
    print(f"{args.candidate}, batches of {BATCH}, {torch.get_num_threads()} threads: steps a second, median (all)")
    for name, each in rates.items():
        print(f"| {name} | {median(each):.1f} | {', '.join(f'{one:.1f}' for one in each)} |")
    if args.write:
        record = {"candidate": args.candidate, "threads": torch.get_num_threads(), "steps_a_second": rates}
        args.write.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
