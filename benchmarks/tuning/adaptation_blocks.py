"""Which two blocks of a tower to train on few labels: the last, or those of highest target importance.

Importance is that by which the ranking weighs blocks (`ranking.dcd`): softmax of the target's log activity, F = margin,
on 32 images and less its mean over the library's tasks without the target's own. Rows as in `adaptation`, whose bare
loop they share: full fine-tuning, and two blocks beside what follows the last block, at one rate. Depth is the share of
the tower's blocks that the gradient passes, from the first that is trained.

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 16 --seed 5 --only aerial_scenes,cats_dogs,...
    python -m benchmarks.tuning.adaptation_blocks TARGETS --records RECORDS \
        --write benchmarks/results/adaptation-blocks.json
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from scipy import special

from benchmarks.tuning.adaptation import FIXED, QUICK, blocks_and_end, measure_all, table
from benchmarks.tuning.plain_lines import Recipe
from benchmarks.tuning.recorded_targets import read_command_line
from benchmarks.tuning.target_heads import Look
from vlmsel_auto.library.places import default_library
from vlmsel_auto.measuring.measure import margin_conductance, profiled_images
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.ranking.dcd import depth_corrected
from vlmsel_auto.records import FloatArray

_COUNT: Final = 2
LAST, MOST, LEAST = "the last two blocks", "the two of highest importance", "the two of lowest importance"
NAMES: Final = ("full", LAST, MOST, LEAST)


def importance(seen: Look, place: int) -> tuple[tuple[str, ...], FloatArray]:
    """Blocks of the candidate at this place of the mini zoo, and their importance (B,) on the target."""
    candidate, task, library = mini_zoo()[place], seen.task, default_library()
    sources = library.leave_out(name=task.name)
    own = sources.activity[sources.row(candidate.id)]
    text = seen.texts[place].astype(np.float32)
    made = margin_conductance(zoo.load(candidate), task, profiled_images(task), text=text)
    known = own[np.isfinite(own).all(axis=1)]
    z = depth_corrected(made.activity.mean(axis=0)[None], known, np.ones((1, len(known)), dtype=np.bool_))
    return made.blocks, special.softmax(z[0])


def rows_of(seen: Look, place: int) -> dict[str, Recipe]:
    """The rows of a candidate, whose blocks depend on the target."""
    blocks, weight = importance(seen, place)
    order = np.argsort(-weight, kind="stable").tolist()
    print(f"{seen.task.name}: importance {np.round(weight, 2).tolist()}", flush=True)

    def two(chosen: Sequence[int]) -> Recipe:
        shares = {blocks[b]: 1.0 for b in chosen}
        return Recipe(adapt=partial(blocks_and_end, shares=shares, after=blocks[-1]))

    everything = list(range(len(blocks)))
    rows = {LAST: everything[-_COUNT:], MOST: order[:_COUNT], LEAST: order[-_COUNT:]}
    return {"full": Recipe(), **{name: two(chosen) for name, chosen in rows.items()}}


def main() -> None:
    """Command line."""
    told = read_command_line(__doc__, quick=QUICK)
    found = measure_all(told, names=NAMES, rows_of=rows_of)
    told.finish({"targets": list(found), "rows": table(found, [*FIXED, *NAMES], against=LAST)})


if __name__ == "__main__":
    main()
