"""What planning must know of a way to tune a candidate. The table of methods is `tuning.methods`."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vlmsel_auto.planning.space import DEFAULT, Point, Range, Space
from vlmsel_auto.records import Candidate, TrialSpec


class Trains(enum.StrEnum):
    """What a method changes and therefore exports; its cost and its place in the plan follow from that."""

    NOTHING = "nothing"  # measured once, as a search's zero-shot baseline
    HEAD = "head"  # on cached features: a candidate's first trial pays for one pass over the images
    TOWER = "tower"  # an epoch is a pass with gradients; trials meet at rungs, can be pruned and shortened


class Part(enum.StrEnum):
    """What of a visual tower is trained, from what takes most memory to what takes least."""

    TOWER = "tower"
    LOW_RANK = "matrices of low rank"  # added to those of the attention
    LAST_BLOCKS = "last blocks"
    PROJECTION = "what follows the last block"


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSizes:
    """Images that a trial learns from, is chosen by and is reported on."""

    train: int
    val: int
    test: int = 0


# of candidate, training images, and images that a default trial shows; None: by the number of training images
Ranges = Callable[[Candidate, int, int | None], Mapping[str, Range]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """One row of the table of methods."""

    name: str
    label: str  # as people read it
    module: str  # dotted; its ``run(work)`` does one trial and is imported with the first (it imports torch)
    trains: Trains
    ranges: Ranges  # of the settings; "epochs" is rounded to whole numbers
    settings: tuple[str, ...] = ()  # their names, for every candidate the same
    gain: float = 0.0  # of the metric, over the first method, before either was seen on a task
    step_cost: float = 3.0  # a training image against a pass without gradients
    part: Part | None = None  # of the tower that is trained; None: what the candidate's recipe says

    def space(self, candidate: Candidate, *, train_images: int, images_per_trial: int | None = None) -> Space:
        """What may vary for one candidate on a task.

        Args:
            candidate: its family and size choose the learning rates.
            train_images: with few of them an epoch is short and more are worth while.
            images_per_trial: images that a default trial shows to the tower, repeats counted; None: by their number.

        Raises:
            ValueError: no training image.
        """
        if train_images < 1 or (images_per_trial is not None and images_per_trial < 1):
            raise ValueError(f"image counts must be positive, but got {train_images=} and {images_per_trial=}")
        return Space(method=self.name, ranges=self.ranges(candidate, train_images, images_per_trial))

    def default(self, candidate: Candidate, *, train_images: int, seed: int, point: Point = DEFAULT) -> TrialSpec:
        """The trial at the middle of the space, or at ``point``."""
        return self.space(candidate, train_images=train_images).spec(point, candidate=candidate.id, seed=seed)

    def relative_cost(self, sizes: SplitSizes, *, epochs: int) -> float:
        """Cost of a trial in passes over all images without gradients, which is what a first trial of a head takes."""
        if self.trains is not Trains.TOWER:
            return 1.0
        whole = epochs * (self.step_cost * sizes.train + sizes.val) + sizes.test
        return whole / max(1, sizes.train + sizes.val + sizes.test)
