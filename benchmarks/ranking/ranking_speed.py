"""How long a ranking takes from stored profiles: 121 candidates on 38 source tasks, the size of open_clip's own table.

The library is the shipped one, its candidates and tasks repeated under other names until there are as many. The target
is one of its tasks with drawn embeddings of 160 images; what is timed is `rank_candidates`, the whole of it: signals of
the target, divergences to all sources, weights learned by leaving sources out, probabilities of ranks. With labels
most of the time goes to the evidence scores of the target's own images.

    python -m benchmarks.ranking.ranking_speed             # half a minute, most of it to make the library
    python -m benchmarks.ranking.ranking_speed --quick     # 30 candidates on 12 tasks
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import numpy as np

from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.ranking import rank_candidates
from vlmsel_auto.records import IntArray

IMAGES, CLASSES, WIDTH = 160, 10, 128


def repeated(library: Library, *, candidates: int, tasks: int) -> Library:
    """The library's cells under other names until there are as many."""
    known = {(one.candidate.id, one.task.name): one for one in library.cells()}
    cells = []
    for i in range(candidates):
        for j in range(tasks):
            cell = known[library.candidate_ids[i % len(library.candidates)], library.task_names[j % len(library.tasks)]]
            cells.append(
                replace(
                    cell,
                    candidate=replace(cell.candidate, id=f"{cell.candidate.id}.{i}"),
                    task=replace(cell.task, name=f"{cell.task.name}.{j}", digest=f"{cell.task.digest}{j}"),
                )
            )
    return assemble(cells)


def targets(library: Library, *, seed: int) -> tuple[list[Measurement], IntArray]:
    """The first task as a target, with drawn embeddings."""
    rng = np.random.default_rng(seed)
    labels = np.arange(IMAGES) % CLASSES
    found = []
    for m, one in enumerate(library.candidates):
        texts = rng.normal(size=(CLASSES, WIDTH))
        texts /= np.linalg.norm(texts, axis=1, keepdims=True)
        found.append(
            Measurement(
                candidate=one.id,
                features=texts[labels] + rng.normal(scale=0.2, size=(IMAGES, WIDTH)),
                text_features=texts,
                baseline=np.zeros(WIDTH),
                activity=library.activity[m][0],
            )
        )
    return found, labels


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=121)
    parser.add_argument("--tasks", type=int, default=38)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    size = (30, 12) if args.quick else (args.candidates, args.tasks)
    library = repeated(load(default_library_path()), candidates=size[0], tasks=size[1])
    given, labels = targets(library, seed=0)
    found: dict[str, dict[str, float]] = {}
    print("| labels a class | seconds, least of three | of a processor |\n|---|---|---|")
    for shots in (0, IMAGES // CLASSES):
        spent = []
        for _ in range(3):
            began, worked = time.perf_counter(), time.process_time()
            ranking = rank_candidates(task="target", targets=given, labels=labels if shots else None, library=library)
            spent.append((time.perf_counter() - began, time.process_time() - worked))
        assert len(ranking.ranked) == size[0]  # noqa: S101 - all of them were ranked
        wall, processor = min(spent)
        found[str(shots)] = {"wall": round(wall, 3), "processor": round(processor, 3)}
        print(f"| {shots} | {wall:.2f} | {processor:.2f} |", flush=True)
    print(json.dumps({"candidates": size[0], "tasks": size[1], "seconds": found}))


if __name__ == "__main__":
    main()
