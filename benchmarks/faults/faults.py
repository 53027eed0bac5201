"""QUESTION: Does what is promised about kills, signals, disks, damage and memory hold?

PAGE: docs/results/reliability.md
RESULT: benchmarks/results/faults.json

    python -m benchmarks.faults.faults --quick                # about a minute; in the tests
    nice python -m benchmarks.faults.faults                   # an hour or two of one core; goes on where it was
    python -m benchmarks.faults.faults --only kills,memory

Each case starts `vlmsel-auto search` (two candidates of the mini zoo, digits that scikit-learn ships, heads and
short fine-tunings), does it harm, gives the same command again and compares with an undisturbed search: every
finished trial there once with the same figures, the same predicted order and the same best model, which must load in
plain open_clip and score what the record says. A case that is on file is not run again. The last line is one JSON
object with what went wrong in each case; the exit status is 1 when anything did. Searches of the quick form are forked
from this process, which has imported what they need.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

from benchmarks.faults import faults_cases as cases
from benchmarks.faults import faults_kills as kills
from benchmarks.faults.faults_world import Found, Reference, World, found_in

Record = dict[str, object]
Case = Callable[[], Record]
RESULTS = Path(__file__).parents[1] / "results" / "faults.json"
_SEARCHES = 17  # of three kills each
_WORKER_SEARCHES = 9  # likewise, of workers


def quick_cases(world: World) -> Iterator[tuple[str, Case]]:
    """One of the most telling kinds."""
    reference, cpu = _undisturbed(world)
    stages = ("trial", "report")
    yield "kills 0", partial(kills.killed_search, world, seed=0, stages=stages, reference=reference, cpu=cpu)
    yield "disk full 3000", partial(kills.full_disk, world, kilobytes=3_000, reference=reference)


def all_cases(world: World) -> Iterator[tuple[str, Case]]:
    """Every case by name, the cheap ones first."""
    yield "memory over 1,000 trials", partial(cases.coordinator_memory, world, trials=1_000)
    yield "out of memory", partial(cases.out_of_memory, world)
    yield "damaged candidates", partial(cases.damaged_candidates, world)
    yield "trial that kills", partial(cases.killing_trial, world)
    reference, cpu = _undisturbed(world)
    for kind in cases.KINDS:
        yield f"flip {kind}", partial(cases.flipped, world, kind=kind, reference=reference)
    for name, times in (("SIGTERM", 1), ("SIGHUP", 1), ("SIGINT", 1), ("SIGINT", 2)):
        yield f"{name} x {times}", partial(kills.signalled, world, name=name, times=times, reference=reference)
    yield "SIGSTOP", partial(kills.stopped, world, seconds=60.0, reference=reference)
    for size in (100, 700, 2_000, 3_000, 4_500):
        yield f"disk full {size}", partial(kills.full_disk, world, kilobytes=size, reference=reference)
    for size in (1, 50, 1_000):
        yield f"file limit {size}", partial(kills.file_limit, world, kilobytes=size, reference=reference)
    yield "read-only", partial(kills.read_only, world, reference=reference)
    yield "read-only file system", partial(kills.failing_disk, world, reference=reference)
    for number, stages in enumerate(kills.rounds(_SEARCHES)):
        one = partial(kills.killed_search, world, seed=number, stages=stages, reference=reference, cpu=cpu)
        yield f"kills {number}", one
    two, _ = _undisturbed(world, more=kills.WORKERS)
    for number in range(len(kills.ROUNDS)):
        yield f"workers {number}", partial(kills.killed_coordinator, world, seed=number, reference=two)
    for number in range(_WORKER_SEARCHES):
        engine = "ray" if number % 2 else "processes"
        killed = partial(kills.killed_workers, world, engine=engine, seed=number, reference=two)
        yield f"killed workers {number} ({engine})", killed


def _undisturbed(world: World, *, more: tuple[str, ...] = ()) -> tuple[Reference, Callable[[], float]]:
    """What comes of a search that nothing happens to, and the seconds of processor time that it takes."""

    @cache
    def made() -> tuple[Found, float]:
        workdir = world.root / "-".join(["reference", *(each.strip("-") for each in more)])
        run = world.run(workdir, more=more)
        if run.code:
            raise SystemExit(f"the undisturbed search failed: {run.lines[-1:]}")
        return found_in(workdir, world.task), run.cpu

    return (lambda: made()[0]), (lambda: made()[1])


def campaign(chosen: Iterator[tuple[str, Case]], *, only: tuple[str, ...], file: Path | None) -> dict[str, Record]:
    """Run the cases that are not on file, and keep each at once."""
    done: dict[str, Record] = json.loads(file.read_text("utf-8")) if file is not None and file.exists() else {}
    for name, case in chosen:
        if name in done or (only and not name.startswith(only)):
            continue
        done[name] = case()
        print(f"{name}: {json.dumps(done[name])}", flush=True)
        if file is not None:
            file.write_text(json.dumps(done, indent=1, sort_keys=True) + "\n", "utf-8")
    return done


def summary(done: dict[str, Record]) -> dict[str, object]:
    """Figures over all cases."""
    struck = [each["kills"] for each in done.values() if isinstance(each.get("kills"), list)]
    lost = [float(str(each["cpu_lost_a_kill"])) for each in done.values() if "cpu_lost_a_kill" in each]
    return {
        "cases": len(done),
        "kills": sum(len(each) for each in struck if isinstance(each, list)),
        "cpu_seconds_lost_a_kill": round(sum(lost) / len(lost), 2) if lost else None,
        "skipped": [name for name, record in done.items() if "skipped" in record],
        "wrong": {name: record["wrong"] for name, record in done.items() if record["wrong"]},
    }


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute of it; nothing is kept")
    parser.add_argument("--only", default="", help="comma list of beginnings of names of cases")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vlmsel-faults-") as folder:
        world = World.made(Path(folder), forked=chosen.quick)
        only = tuple(name for name in chosen.only.split(",") if name)
        listed = quick_cases(world) if chosen.quick else all_cases(world)
        done = campaign(listed, only=only, file=None if chosen.quick else RESULTS)
    told = summary(done)
    print(json.dumps(told))
    if told["wrong"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
