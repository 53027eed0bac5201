"""Real models within limits: python examples/real_zoo.py FOLDER SECONDS [CANDIDATES], such as `laptop` or ARCH/TAG.

Prints what would be loaded first, searches, and says what accuracy costs. Needs a model hub, or its cache, for all but
the mini zoo.
"""

from __future__ import annotations

import sys
from pathlib import Path

import vlmsel_auto
from vlmsel_auto.events import DownloadProgress, Event, Notice


def tell(event: Event) -> None:
    """Show notices, and each download once it has ended."""
    if isinstance(event, Notice):
        print(event.text)
    elif isinstance(event, DownloadProgress) and event.ended:
        print(f"{event.candidate}: {event.done / 1e6:.0f} MB")


def main(folder: str, seconds: float, wanted: str) -> None:
    """Search among models that may take at most 4 GB of memory and a second an image."""
    limits = vlmsel_auto.Limits(max_memory_bytes=4_000_000_000, max_latency=1.0)
    workdir = f"real-zoo-{Path(folder).resolve().name}"  # search_folder.py has another: other settings
    result = vlmsel_auto.search(folder, candidates=wanted, limits=limits, budget=seconds, workdir=workdir, sink=tell)

    for name, why in result.ranking.failures.items():
        print(f"not used: {name}: {why}")
    for name, left in result.ranking.not_looked.items():
        print(f"not screened: {name}: {left.reason}, a screening would take {left.seconds:.0f} s")
    for model in result.tradeoffs:
        front = ", on the front" if model.on_front else ""
        print(f"{model.name} ({model.method}): {model.accuracy:.1%}, {1e3 * model.latency:.1f} ms an image{front}")
    if result.best is not None:
        print(f"{result.best.candidate}: test {result.best.test}, model in {result.best.model_dir}")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "auto")  # noqa: PLR2004 - optional
