"""What tuning towers in mixed bfloat16 costs in accuracy: the same fits in both precisions.

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 16 --seed 5 --only ...
    python -m benchmarks.tuning.tuned_precision TARGETS --records RECORDS \
        --write benchmarks/results/tuned-precision.json
    python -m benchmarks.tuning.tuned_precision TARGETS --records RECORDS --quick

On each target three candidates, by the log loss of their regression out of fold: the first of all, and the first two of
those that were pretrained on other things (drawings on photographs, photographs on drawings). Each is fine-tuned on all
labelled images, with two seeds. The product tunes members of the mini zoo in float32, since they are small; here they
are made to do both. In brackets: standard error over targets, in points. What two seeds
differ by in float32 stands beside it. A target that is on record is not measured again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.common import by_target, standard_error
from benchmarks.tuning.recorded_fits import on_all, work_of
from benchmarks.tuning.recorded_targets import read_command_line
from benchmarks.tuning.target_heads import Look, look
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.recordjson import encode
from vlmsel_auto.tuning import finetune
from vlmsel_auto.tuning.work import Work

SEEDS = 2
DRAWINGS = {"emoji_groups", "omniglot_alphabets", "sign_digits", "synth_sentiment"}
_FAR = 2  # candidates that were pretrained on other things


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One candidate on one target; test accuracies in [0, 1] by seed."""

    target: str
    candidate: str
    float32: tuple[float, ...]
    bfloat16: tuple[float, ...]


def chosen(seen: Look, name: str) -> list[int]:
    """Places in the mini zoo for the target of this name: the first, and those that were pretrained on other things."""
    others = ("photo-", "synth-") if name in DRAWINGS else ("glyph-", "synth-")
    far = [place for place in seen.order if any(f".{kind}" in mini_zoo()[place].id for kind in others)][:_FAR]
    return list(dict.fromkeys([seen.order[0], *far]))


def fits(work: Work, *, bfloat16: bool) -> tuple[float, ...]:
    """Test accuracy of a fit by each seed."""
    with patch.object(finetune, "tunes_in_bfloat16", lambda *_: bfloat16):
        found = [finetune.run(replace(work, spec=replace(work.spec, seed=seed))).test for seed in range(SEEDS)]
    return tuple(each for each in found if each is not None)


def measure(target: Path, *, scratch: Path) -> list[Pair]:
    """All candidates of one target."""
    seen, found = look(target, scratch=scratch), []
    for place in chosen(seen, target.name):
        work = on_all(work_of(seen.task, mini_zoo()[place], scratch=scratch))
        pair = Pair(
            target=target.name, candidate=work.candidate.id, float32=fits(work, bfloat16=False),
            bfloat16=fits(work, bfloat16=True),
        )  # fmt: skip
        print(pair, flush=True)
        found.append(pair)
    return found


def summary(pairs: Sequence[Pair]) -> dict[str, float]:
    """Means, the difference in points and its standard error over targets, and what seeds differ by."""
    gaps = by_target((each.target, 100 * float(np.mean(each.bfloat16) - np.mean(each.float32))) for each in pairs)
    return {
        "pairs": float(len(pairs)),
        "float32": float(np.mean([each.float32 for each in pairs])),
        "bfloat16": float(np.mean([each.bfloat16 for each in pairs])),
        "points": float(gaps.mean()),
        "se": standard_error(gaps),
        "between seeds, points": 100 * float(np.mean([abs(each.float32[0] - each.float32[1]) for each in pairs])),
        "between precisions, points": 100
        * float(np.mean([abs(a - b) for each in pairs for a, b in zip(each.float32, each.bfloat16, strict=True)])),
    }


def main() -> None:
    """Command line."""
    told = read_command_line(__doc__, quick="the first target")
    pairs = told.kept(Pair, partial(measure, scratch=told.scratch))
    found = summary(pairs)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))
    told.finish({"summary": found, "pairs": [encode(each) for each in pairs]})


if __name__ == "__main__":
    main()
