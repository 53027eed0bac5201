"""The search space of one trial as data: ranges and defaults by method, tower family and size.

Every range is centred on its default, so the unit cube is comparable between candidates: 0.5 is always "the default of
this family", and what one candidate teaches about learning rates carries over to the next. `study` suggests points of
the unit cube, `Space.spec` turns them into a `TrialSpec`.

The defaults are our own choice, tuned on the mini zoo (see docs of the benchmarks) and, for towers of more than twenty
million parameters, the usual range of full CLIP fine-tuning (1e-6 to 1e-4).

Default hyperparameters of each candidate, learned from past trials by method and tower family. Pure.

A first trial has no experience of its own task to go by, so it begins where trials of the same method and tower family
went well before. Form (our own choice): within one task and candidate, trials are weighted by how near they came to
the best of them; the weighted mean point of each such group is one vote, and votes are shrunk towards the method's mean
over all families, which is shrunk towards the built-in default. Few trials therefore move little, and trials that were
all made at the default move nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlmsel_auto.records import Candidate, FloatArray, Method, TrialSpec

__all__ = [
    "LARGE_TOWER",
    "Defaults",
    "PastTrial",
    "Point",
    "Range",
    "Space",
    "default_point",
    "learn_defaults",
    "space_for",
]

LARGE_TOWER = 20_000_000  # parameters of both towers; above it the learning rates of real pretrained models apply
_HUGE_TOWER = 500_000_000

_RATES = {"vit": 3e-4, "resnet": 7e-4, "convnext": 7e-4, "efficientnet": 1e-3}  # small models, full fine-tuning
_LARGE_RATE = 1e-5
_HUGE_RATE = 5e-6
_EPOCHS_FACTOR = 3.0  # fine-tuning takes so many times fewer or more epochs than its default
_PROBE_RATE = 5e-3  # at few images, where a probe that moves far from the text head overfits
_PROBE_DECAY = 0.03
_PROBE_EPOCHS = 60
_PROBE_FEW = 200  # images: with n times as many a probe moves n times as fast and as long, up to the factor below
_PROBE_MOST = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A closed interval, walked linearly or on a log scale."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not self.low <= self.high or (self.log and self.low <= 0):
            raise ValueError(f"a range needs low <= high, and low > 0 on a log scale, but got {self!r}")

    def at(self, unit: float) -> float:
        """Value at ``unit`` in [0, 1] of the way from low to high."""
        if not 0 <= unit <= 1:
            raise ValueError(f"a place in the unit interval lies in [0, 1], but got {unit!r}")
        if unit in {0.0, 1.0}:
            return self.high if unit else self.low  # exact ends
        if self.log:
            return math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        return self.low + unit * (self.high - self.low)

    def unit(self, value: float) -> float:
        """Where ``value`` lies, 0 at low and 1 at high; values outside are clipped."""
        if self.high == self.low:
            return 0.5
        if self.log:
            place = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, place))


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A point of the unit cube: 0.5 is the default of method and family."""

    learning_rate: float = 0.5
    weight_decay: float = 0.5
    augmentation: float = 0.5
    epochs: float = 0.5

    def moved(self, *, learning_rate: float, weight_decay: float, augmentation: float, epochs: float) -> Point:
        """The point shifted by these amounts and kept inside the cube."""

        def clip(value: float) -> float:
            return min(1.0, max(0.0, value))

        return Point(
            learning_rate=clip(self.learning_rate + learning_rate),
            weight_decay=clip(self.weight_decay + weight_decay),
            augmentation=clip(self.augmentation + augmentation),
            epochs=clip(self.epochs + epochs),
        )

    def shorter(self, ratio: float) -> Point:
        """The point with ``ratio`` of its epochs of fine-tuning, as far as the cube allows."""
        return replace(self, epochs=max(0.0, self.epochs + math.log(ratio) / (2 * math.log(_EPOCHS_FACTOR))))


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """What may vary for one candidate and method."""

    method: Method
    learning_rate: Range
    weight_decay: Range
    augmentation: Range
    epochs: Range  # rounded to whole epochs

    def spec(self, point: Point, *, candidate: str, seed: int) -> TrialSpec:
        """The trial at ``point``."""
        return TrialSpec(
            candidate=candidate,
            method=self.method,
            learning_rate=self.learning_rate.at(point.learning_rate),
            weight_decay=self.weight_decay.at(point.weight_decay),
            augmentation=self.augmentation.at(point.augmentation),
            epochs=round(self.epochs.at(point.epochs)),
            seed=seed,
        )

    def point(self, spec: TrialSpec) -> Point:
        """The inverse of `spec`, clipped to the cube; epochs are whole numbers, so only near."""
        return Point(
            learning_rate=self.learning_rate.unit(spec.learning_rate),
            weight_decay=self.weight_decay.unit(spec.weight_decay),
            augmentation=self.augmentation.unit(spec.augmentation),
            epochs=self.epochs.unit(spec.epochs),
        )


def default_point() -> Point:
    """The middle of the cube."""
    return Point()


def _around(middle: float, factor: float) -> Range:
    return Range(low=middle / factor, high=middle * factor, log=True)


def _tuning_rate(family: str, params: int | None) -> float:
    size = params if params is not None else LARGE_TOWER  # unknown size: rather too gentle than too rough
    if size >= _HUGE_TOWER:
        return _HUGE_RATE
    if size >= LARGE_TOWER:
        return _LARGE_RATE
    return _RATES.get(family, 5e-4)


def space_for(method: Method, *, candidate: Candidate, train_images: int, images_per_trial: int = 2_500) -> Space:
    """Ranges for one candidate on a task.

    Args:
        method: ``"probe"`` (linear head on cached features) or ``"finetune"`` (whole visual tower and head).
        candidate: its family and number of parameters choose the learning rates.
        train_images: number of training images; with few of them an epoch is short and more are worth while.
        images_per_trial: how many images a default fine-tuning trial shows to the tower, repeats counted.

    Raises:
        ValueError: no training image, or a method that does not exist.
    """
    if train_images < 1 or images_per_trial < 1:
        raise ValueError(f"image counts must be positive, but got {train_images=} and {images_per_trial=}")
    if method == "probe":
        reach = min(_PROBE_MOST, max(1.0, train_images / _PROBE_FEW))
        return Space(
            method="probe",
            learning_rate=_around(_PROBE_RATE * reach, 16.0),
            weight_decay=_around(_PROBE_DECAY, 32.0),
            augmentation=Range(low=0.0, high=0.0),
            epochs=_around(_PROBE_EPOCHS * reach, 4.0),
        )
    if method == "finetune":
        epochs = min(30, max(3, round(images_per_trial / train_images)))
        return Space(
            method="finetune",
            learning_rate=_around(_tuning_rate(candidate.family, candidate.params), 6.0),
            weight_decay=Range(low=2.5e-3, high=1.0, log=True),
            augmentation=Range(low=0.0, high=0.8),
            epochs=_around(epochs, _EPOCHS_FACTOR),
        )
    raise ValueError(f"method must be 'probe' or 'finetune', but got {method!r}")


_NEAR = 0.02  # of the metric: a trial that is worse by this weighs 1 / e
_SHRINK = 4.0  # votes that the mean above counts for

Defaults = Mapping[tuple[str, Method], Point]


@dataclass(frozen=True, kw_only=True, slots=True)
class PastTrial:
    """A complete trial of an earlier search."""

    task: str  # digest
    candidate: str
    family: str
    method: Method
    point: Point  # of the unit cube of its method and family
    value: float  # validation metric, in [0, 1]


def learn_defaults(
    past: Sequence[PastTrial], *, candidates: Sequence[Candidate], methods: Sequence[Method], without: str = ""
) -> Defaults:
    """Where the first trial of each candidate and method should be.

    Args:
        past: trials of earlier searches, in any order.
        candidates: who will be tuned.
        methods: how.
        without: digest of a task whose trials are left out: the target's own.
    """
    found: dict[tuple[str, Method], Point] = {}
    for method in methods:
        votes = _votes([each for each in past if each.method == method and each.task != without])
        everyone = _shrunk([vote for _, vote in votes], towards=_array(Point()))
        by_family = {
            family: _shrunk([vote for of, vote in votes if of == family], towards=everyone)
            for family in {each.family for each in candidates}
        }
        for each in candidates:
            found[each.id, method] = _point(by_family[each.family])
    return found


def _votes(past: Sequence[PastTrial]) -> list[tuple[str, FloatArray]]:
    """(family, mean point) of each task and candidate that was tried more than once."""
    groups: dict[tuple[str, str], list[PastTrial]] = {}
    for each in past:
        groups.setdefault((each.task, each.candidate), []).append(each)
    votes = []
    for _, group in sorted(groups.items()):
        if len(group) > 1:
            values = np.array([each.value for each in group])
            weights = np.exp((values - values.max()) / _NEAR)
            points = np.stack([_array(each.point) for each in group])
            votes.append((group[0].family, weights @ points / weights.sum()))
    return votes


def _shrunk(votes: Sequence[FloatArray], *, towards: FloatArray) -> FloatArray:
    total: FloatArray = (_SHRINK * towards + sum(votes, np.zeros(4))) / (_SHRINK + len(votes))
    return total


def _array(point: Point) -> FloatArray:
    return np.array([point.learning_rate, point.weight_decay, point.augmentation, point.epochs])


def _point(values: FloatArray) -> Point:
    rate, decay, augmentation, epochs = (min(1.0, max(0.0, float(value))) for value in values)
    return Point(learning_rate=rate, weight_decay=decay, augmentation=augmentation, epochs=epochs)
