"""Frozen records that pass between the rooms: numpy arrays and plain values, no behaviour beyond look-ups.

Shapes: n images, M candidates, S source tasks, B visual blocks, C channels of a block, K classes, D embedding width.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.errors import BudgetError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1"]
CLASSES_ALIKE: Final[frozenset[Metric]] = frozenset({"balanced_accuracy", "macro_f1"})  # metrics that weigh them alike
UNLABELLED: Final = -1  # in the place of a class


class Basis(enum.StrEnum):
    """What a candidate's place in a ranking rests on."""

    LIBRARY_AND_LABELS = "library and labels"
    LIBRARY = "library"
    LABELS = "labels"
    IMAGES = "unlabelled images"
    PUBLISHED = "published figures"
    NOTHING = "no signal"

    @property
    def has_library(self) -> bool:
        """Whether source tasks of a library took part."""
        return self in (Basis.LIBRARY, Basis.LIBRARY_AND_LABELS)


class TrialState(enum.StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"  # ended early: others were better, or there was no time; it may go on
    FAILED = "failed"


class TrialOrigin(enum.StrEnum):
    """Why a trial was run."""

    FLOOR = "floor"  # trial 0 of a search: nothing is trained
    PLANNED = "planned"  # first trial of a candidate by a method
    SAMPLED = "sampled"
    AUDIT = "audit"  # postponed, tuned to measure what postponing costs


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageView:
    """Geometry that a candidate's preprocessing wants; pixel values stay uint8 (mean and std come later)."""

    size: int  # side of the square view, pixels
    resize_mode: Literal["shortest", "squash", "longest"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fill_color: int = 0  # padding value of "longest", 0..255


@dataclass(frozen=True, kw_only=True, slots=True)
class BadFile:
    """A file of the task folder that was left out or had to be repaired."""

    path: str  # relative to the task folder
    reason: str
    used: bool = False  # True: repaired or converted and kept; False: left out


class PixelSource(Protocol):
    """Decoded images of a task: each is decoded when it is first wanted in a view, and kept."""

    def read(self, view: ImageView, indices: IntArray) -> NDArray[np.uint8]:
        """Return the images ``indices`` in ``view`` as uint8 (n, size, size, 3), RGB."""
        ...

    def prepare(self, view: ImageView, indices: IntArray, *, check: Callable[[], None] = lambda: None) -> None:
        """Decode ahead what many calls of `read` will want; ``check`` is called now and then and may raise."""

    @property
    def found_bad(self) -> tuple[BadFile, ...]:
        """Files that were found damaged, or converted, when they were first decoded: not in ``Task.bad_files``."""
        return ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A classification task: image files, their labels and split, and how to speak of the classes.

    All images are labelled or none: what a partly labelled folder has beyond its labels is not in its task. Without
    labels there is no split; ``train``, ``val``, ``test``, ``support`` and ``folds`` are empty.
    """

    name: str
    root: Path
    classes: tuple[str, ...]  # folder or label names, sorted
    prompts: tuple[str, ...]  # what a template's {} becomes, one per class
    templates: tuple[str, ...]  # each holds one {}
    domain: str
    metric: Metric
    paths: tuple[str, ...]  # (N,) relative to root
    labels: IntArray  # (N,) in 0..K-1, or all `UNLABELLED`
    train: IntArray  # indices into paths
    val: IntArray
    test: IntArray
    support: IntArray  # few-shot subset of train, at most `shots` a class
    shots: int
    bad_files: tuple[BadFile, ...]
    pixels: PixelSource
    digest: str  # sha256 over pixels, labels, split, prompts, templates
    seed: int = 0  # of split, cap and few-shot draws
    notes: tuple[str, ...] = ()  # what a reader must know: images capped, splits carved, files not used
    folds: tuple[IntArray, ...] = ()  # train and val in parts, the first being val; none where val was given

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    @property
    def is_labelled(self) -> bool:
        """Whether the classes of its images are known."""
        return not bool((self.labels == UNLABELLED).all())

    @property
    def looked_at(self) -> IntArray:
        """Images (n,) that a look at a candidate embeds: the support set, or all of those without labels."""
        return self.support if self.is_labelled else np.arange(len(self.paths), dtype=np.int64)

    @property
    def known_labels(self) -> IntArray | None:
        """Classes (n,) of the images that looks embed; None: there are no labels."""
        return self.labels[self.support] if self.is_labelled else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A pretrained model that may be tuned. Metadata only: no weights are touched to make one."""

    id: str  # unique and stable: "ViT-Mi-8-64.all-l", "ViT-B-32/laion2b_s34b_b79k", "local-dir:/models/x"
    source: Literal["mini-zoo", "open_clip", "local-dir"]
    arch: str  # architecture name; kin of one family share its prefix
    tag: str  # pretraining tag
    path: Path | None = None  # folder of a mini-zoo or local-dir candidate
    view: ImageView
    params: int | None = None  # parameters of both towers
    flops: float | None = None  # floating-point operations (2 x multiply-adds) of one image through the visual tower
    family: str = "unknown"  # "vit", "resnet", "convnext", "efficientnet", ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """Conductance of every visual block of one candidate on some images of one task."""

    candidate: str
    task: str
    blocks: tuple[str, ...]  # (B,) module names, shallow to deep
    activity: FloatArray  # (n, B) sum over neurons of |C|, units of F
    signature: tuple[FloatArray, ...]  # B arrays (n, C_b): signed conductance summed over tokens or pixels
    absolute: tuple[FloatArray, ...]  # B arrays (n, C_b): |conductance| summed over tokens or pixels
    total: FloatArray  # (n,) F(x) - F(x0)
    completeness_error: FloatArray  # (n, B) |sum C - total| / |total|
    scalar: str  # "margin", "norm", ...
    baseline: str
    integrator: str
    points: int  # points of the path that were evaluated
    error: float  # achieved relative error per neuron, as estimated by the engine: mean over images
    wanted: float | None = None  # error that was asked for; None: the number of points was
    reached: bool = True  # whether every image's estimated error is at most the wanted one
    provenance: tuple[tuple[str, str], ...] = ()  # sorted (name, value): what it was made from and with


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A central interval of an estimate."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedCandidate:
    """One line of a ranking. Scores are in standard units of predicted accuracy within the task; higher is better."""

    candidate: str
    score: float  # posterior mean: everything fused
    sd: float  # posterior standard deviation
    prior: float | None  # what the library alone says (no target labels)
    evidence: float | None  # what the target's labels alone say
    p_best: float  # probability of being the best of the list
    p_top5: float
    rank_interval: Interval  # of the true rank, 1 = best
    basis: Basis
    signals: Mapping[str, float] = field(default_factory=dict)  # raw score by name: "knn", "logme", "dcd", ...


@dataclass(frozen=True, kw_only=True, slots=True)
class NotLooked:
    """Why a candidate was ranked without a look at it."""

    reason: str
    seconds: float  # that a look would take


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """Predicted order of the candidates on one task, best first."""

    task: str
    ranked: tuple[RankedCandidate, ...]
    failures: Mapping[str, str] = field(default_factory=dict)  # candidate -> why it could not be ranked
    not_looked: Mapping[str, NotLooked] = field(default_factory=dict)  # by candidate
    seed: int = 0  # of split, cap and few-shot draws
    notes: tuple[str, ...] = ()  # what a reader must know: sources used, trust in prior and evidence

    @property
    def order(self) -> tuple[str, ...]:
        """Candidate ids, best first."""
        return tuple(line.candidate for line in self.ranked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a search may spend. None: no limit of that kind.

    Raises:
        BudgetError: a limit that is not finite and above zero.
    """

    seconds: float | None = None
    trials: int | None = None

    def __post_init__(self) -> None:
        """Refuse what allows nothing."""
        for name, value in (("seconds", self.seconds), ("trials", self.trials)):
            if value is not None and not 0 < value < math.inf:
                raise BudgetError(f"a budget of {name} must be positive, or None for no limit, but got {value!r}")


class StoppedBy(enum.StrEnum):
    """Why a search ended."""

    EXHAUSTED = "exhausted"  # no further trial promised enough for its time
    BUDGET = "budget"
    INTERRUPTED = "interrupted"
    ALL_FAILED = "all trials failed"
    NO_LABELS = "no labels"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    """Everything that determines one trial."""

    candidate: str
    method: str  # a row of `tuning.methods`
    settings: Mapping[str, float]  # the method's own: "learning_rate", "weight_decay", ...
    epochs: int
    seed: int
    fold: int = 0  # part of `Task.folds` that a tower is scored on, and never sees


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """What became of one trial."""

    number: int
    spec: TrialSpec
    state: TrialState
    origin: TrialOrigin
    validation: float | None  # the task's metric on the validation split, of the kept epoch
    test: float | None  # on the test split: reported, never used to choose
    curve: tuple[float, ...]  # validation metric after each epoch
    epochs_run: int
    seconds: float  # wall time of the whole trial
    reason: str = ""  # why it failed or was pruned
    out_of_time: bool = False  # the time budget ended it; pruned, if before half of its epochs
    start: float | None = None  # validation metric before training: the zero-shot classifier
    kept_epoch: int | None = None  # epoch whose weights were kept; 0: training did not improve on the start
    continues: int | None = None  # the paused trial whose checkpoint it began from; its epochs are part of the curve
    fidelity: float | None = None  # share of the planned epochs that the curve covers; None: not recorded
    cost: float | None = None  # seconds of this trial and of those that it continues; None: not recorded
    soft_validation: float | None = None  # validation with each image counted by the probability of its true class
    validation_images: int | None = None  # that these were measured on; None: not recorded
    fold_validation: tuple[float, ...] = ()  # of a cross-validated head, its validation on each of `Task.folds`
    fold_soft: tuple[float, ...] = ()  # likewise soft_validation
    on_all_labels: bool = False  # the weights, and ``test``, are of a second fit that left no part out
    averaged_fits: int = 1  # fits on all labels whose mean weights these are


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalScore:
    """A model on the test split, which chose nothing."""

    metric: float  # the task's, in [0, 1]
    images: int
    interval: Interval | None  # 95 %; None: the metric is no share of images
    calibration_error: float  # expected, in [0, 1]: mean distance of probabilities from how often they come true


@dataclass(frozen=True, kw_only=True, slots=True)
class BestModel:
    """The chosen model. Figures are the task's metric in [0, 1]."""

    candidate: str
    method: str
    validation: float | None  # what chose it; None: without labels the ranking did
    test: float | None  # on the test split, which chose nothing
    trial: int | None  # None: without labels there are no trials
    model_dir: Path | None  # exported open_clip folder; None: it could not be written
    on_test: FinalScore | None = None  # of the weights that are exported; None: no test split
    params: int | None = None  # of both its towers


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleModel:
    """Several models, pooled by a weighted sum of their log-probabilities. Figures are the task's metric in [0, 1]."""

    members: tuple[str, ...]  # candidates, the first is the expected best; one may be there by two methods
    trials: tuple[int, ...]  # their trials; none without labels
    weights: tuple[float, ...]  # of their log-probabilities
    validation: float | None  # on images that the scored models never saw; None: there are no labels
    validation_images: int
    test: float | None
    model_dir: Path
    on_test: FinalScore | None = None
    params: int | None = None  # of all members together: each is a pass of its own


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Predicted against actual rank over the n tuned candidates. None: too few to say."""

    n: int
    tau_b: float | None
    weighted_tau: float | None
    ndcg5: float | None  # relevance max(0, 6 - true rank), linear gain
    top1_loss: float | None  # best actual accuracy minus that of the predicted best, in [0, 1]
    top5_loss: float | None
    tau_b_interval: Interval | None = None
    ndcg5_interval: Interval | None = None
    note: str = ""
