"""Make the library that the package ships.

The same as ``vlmsel-auto library build TASKS --leave-out optical_digits --out FILE``, with the tuned accuracies
of TABLE.csv; with ``--research FILE`` also what `research.py` keeps. ``optical_digits`` stays out: the demo's target is
the same data. Finished cells are kept in ``--cache``, so a killed run goes on where it was.

    python -m tools.shipped_library TASKS --tuned TABLE.csv \
        --out vlmsel_auto/data/mini-zoo-library.safetensors \
        --research benchmarks/data/mini-zoo-research.safetensors
    python -m tools.shipped_library TASKS --quick --out quick.safetensors
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmsel_auto.records import Candidate

LEFT_OUT = ("optical_digits",)


def write_research(path: Path, *, folders: Sequence[Path], members: Sequence[Candidate], cache: Path | None) -> None:
    """Measure research figures on the images of the library's cells, whose embeddings are kept in the cache."""
    from benchmarks.ranking.research import save
    from tools.measure_research import assemble, measure_research
    from vlmsel_auto import events
    from vlmsel_auto.cache import Store, default_cache_dir
    from vlmsel_auto.measuring.build import load_tasks
    from vlmsel_auto.measuring.cells import CellSettings
    from vlmsel_auto.models import zoo

    cache, settings = cache or default_cache_dir() / "library", CellSettings()
    tasks = load_tasks(
        folders, candidates=members, settings=settings, leave_out=LEFT_OUT, cache=cache, sink=events.discard
    )
    store, cells = Store(cache / "store"), []
    for one in members:
        model = zoo.load(one)
        cells += [measure_research(model=model, task=task, settings=settings, store=store) for task in tasks]
    save(assemble(cells), path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, help="folder of task folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tuned", type=Path, help="table of tuned accuracies; its rows of other tasks are left out")
    parser.add_argument("--tuned-source", default=None, help="what the library cites as the source of the table")
    parser.add_argument("--research", type=Path, help="also write the figures of compared_rankings.py")
    parser.add_argument("--only", default="", help="comma list of task names; default: all")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two members, one task")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    from tools.tuned_table import import_tuned
    from vlmsel_auto import events
    from vlmsel_auto.cache import default_cache_dir
    from vlmsel_auto.library.file import save
    from vlmsel_auto.measuring import build as library_build
    from vlmsel_auto.measuring.build import Workplace
    from vlmsel_auto.measuring.source_folders import task_folders
    from vlmsel_auto.models import candidates

    def sink(event: events.Event) -> None:
        if isinstance(event, events.Notice | events.StageProgress) and getattr(event, "stage", "library") == "library":
            print(time.strftime("%H:%M:%S"), event.text, file=sys.stderr, flush=True)

    only = set(args.only.split(",")) - {""}
    folders = [one for one in task_folders(args.tasks) if not only or one.name in only]
    members = candidates.mini_zoo()
    if args.quick:
        folders, members = [one for one in folders if one.name not in LEFT_OUT][:1], members[:2]
    began = time.perf_counter()
    place = Workplace(cache=args.cache or default_cache_dir() / "library", jobs=args.jobs)
    made = library_build.build(
        tasks=folders, candidates=members, out=args.out, leave_out=LEFT_OUT, place=place, sink=sink
    )
    if args.tuned:
        made = import_tuned(made, args.tuned, source=args.tuned_source)
        save(made, args.out)
    if args.research:
        chosen = [one for one in folders if one.name not in LEFT_OUT]
        write_research(args.research, folders=chosen, members=members, cache=args.cache)
    print(
        json.dumps(
            {
                "candidates": len(made.candidates),
                "tasks": len(made.tasks),
                "runs": list(made.run_names),
                "failures": len(made.failures),
                "seconds": round(time.perf_counter() - began, 1),
                "cell_seconds": round(float(made.seconds.sum()), 1),
                "bytes": args.out.stat().st_size,
            }
        )
    )


if __name__ == "__main__":
    main()
