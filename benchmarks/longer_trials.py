"""How long a tower is tuned where labelled images are many: epochs and batches of a default trial, and a bare loop.

    python benchmarks/fresh_targets.py TASKS --out TARGETS --train 10000 --seed 5 --only cifar10,white_blood_cells,...
    python benchmarks/longer_trials.py TARGETS --records RECORDS --write benchmarks/results/longer-trials.json
    python benchmarks/longer_trials.py TARGETS --records RECORDS --quick

On each target two candidates, by the log loss of their regression out of fold: the first of all, and the first of those
that were pretrained on other things (see `averaged_fits`). Each is fine-tuned on all labelled images as a search does
it at its end, by one seed. Rows: images that a default trial shows (repeats counted) and the largest batch. The last
one is the bare loop of `plain_lines`: 25 epochs, batches of 32. In brackets: standard error over targets of the
difference to the first row, in points. A target that is on record is not measured again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from averaged_fits import chosen, work_of
from bare_loop import bare
from paired import by_target, of_each_kind, standard_error
from recorded_targets import read_command_line
from target_heads import look

from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.recordjson import encode
from vlmsel_auto.tuning import finetune
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.methods import FINETUNE
from vlmsel_auto.tuning.work import Work

_LARGE = 64  # images of a batch
BARE, HEAD = "bare loop, 25 epochs", "head: regression with zero-shot"
BEFORE, SMALL, LONG, BOTH = (
    f"{shown}, batches up to {batch}" for shown in ("2,500 images", "16 epochs") for batch in (_LARGE, 32)
)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One fit of a tower."""

    accuracy: float  # on test, in [0, 1]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One candidate on one target."""

    target: str
    candidate: str
    far: bool  # pretrained on other things
    images: int  # labelled
    fits: Mapping[str, Fit]  # by row


def tuned(work: Work, *, epochs: int, batch: int) -> Fit:
    """The product's fine-tuning with so many epochs and such batches."""
    began = time.monotonic()
    trial = replace(work, spec=replace(work.spec, epochs=epochs))
    head = finetune.fitted_head(trial)
    found = finetune.train(trial, head, batch=batch)
    return Fit(accuracy=found.test or 0.0, seconds=time.monotonic() - began)


def measure(target: Path, *, scratch: Path) -> list[Pair]:
    """Both candidates of one target."""
    seen = look(target, scratch=scratch)
    truth = seen.task.labels[np.sort(seen.task.test)]
    places, far = chosen(seen, target.name)
    pairs = []
    for place in places[:2]:
        candidate, work = mini_zoo()[place], work_of(seen.task, place, scratch=scratch)
        images = len(work.splits.train)
        usual = FINETUNE.default(candidate, train_images=len(splits(seen.task).train), seed=0).epochs
        small = finetune.batch_size(images, work.device)
        large = _LARGE if images >= 6 * _LARGE else small
        fits: dict[tuple[int, int], Fit] = {}
        named: dict[str, Fit] = {}
        for name, epochs, batch in (
            (BEFORE, work.spec.epochs, large), (SMALL, work.spec.epochs, small), (LONG, usual, large),
            (BOTH, usual, small),
        ):  # fmt: skip
            if (epochs, batch) not in fits:
                fits[epochs, batch] = tuned(work, epochs=epochs, batch=batch)
            named[name] = fits[epochs, batch]
        began = time.monotonic()
        plain = bare(target, candidate, scratch=scratch, seeds=1)
        named[BARE] = Fit(accuracy=plain[0], seconds=time.monotonic() - began)
        right = seen.heads[place]["with text"][1].argmax(axis=1) == truth
        named[HEAD] = Fit(accuracy=float(right.mean()), seconds=0.0)
        pairs.append(Pair(target=target.name, candidate=candidate.id, far=place in far, images=images, fits=named))
        print(pairs[-1], flush=True)
    return pairs


def table(pairs: Sequence[Pair]) -> list[dict[str, object]]:
    """Print means of all, far and first candidates; differences are averaged over a target's pairs first."""
    rows: list[dict[str, object]] = []
    for title, mine in of_each_kind(pairs):
        print(f"\n| {title}: {len(mine)} | accuracy | to the first row | seconds |\n|---|---|---|---|")
        for name in (BEFORE, SMALL, LONG, BOTH, BARE, HEAD):
            gaps = by_target((one.target, 100 * (one.fits[name].accuracy - one.fits[BEFORE].accuracy)) for one in mine)
            error, fits = standard_error(gaps), [one.fits[name] for one in mine]
            accuracy = float(np.mean([fit.accuracy for fit in fits]))
            seconds = float(np.mean([fit.seconds for fit in fits]))
            print(f"| {name} | {accuracy:.3f} | {gaps.mean():+.1f} ({error:.1f}) | {seconds:.0f} |")
            rows.append({"pairs": title, "row": name, "accuracy": accuracy, "points": float(gaps.mean()), "se": error,
                         "seconds": seconds})  # fmt: skip
    return rows


def main() -> None:
    """Command line."""
    told = read_command_line(__doc__, quick="the first target")
    pairs = told.kept(Pair, partial(measure, scratch=told.scratch))
    told.finish({"rows": table(pairs), "pairs": [encode(each) for each in pairs]})


if __name__ == "__main__":
    main()
