"""A classification task, how its images are read, and the pretrained models that may be tuned for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1"]
CLASSES_ALIKE: Final[frozenset[Metric]] = frozenset({"balanced_accuracy", "macro_f1"})  # metrics that weigh them alike
UNLABELLED: Final = -1  # in the place of a class


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
    copy_of: str | None = None  # the file that shows the same image; None: it is no copy


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
class Draw:
    """Which images of an unlabelled pool are its task. Of two draws of one seed the smaller begins the larger."""

    files: int  # that were drawn, those that cannot be used included
    order: IntArray  # (N,) indices into the task's paths, as they were drawn
    ids: IntArray  # (N,) a number for each image that its content determines
    texts: str  # sha256 over prompts and templates


def _nothing() -> IntArray:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A classification task: image files, their labels and split, and how to speak of the classes.

    All images are labelled or none: what a partly labelled folder has beyond its labels is a task ``beside`` it.
    Without labels there is no split; ``train``, ``val``, ``test``, ``support``, ``others`` and ``folds`` are empty.
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
    train: IntArray = field(default_factory=_nothing)  # indices into paths
    val: IntArray = field(default_factory=_nothing)
    test: IntArray = field(default_factory=_nothing)
    support: IntArray = field(default_factory=_nothing)  # few-shot subset of train, at most `shots` a class
    shots: int = 0
    bad_files: tuple[BadFile, ...] = ()
    pixels: PixelSource
    digest: str  # sha256 over pixels, labels, split, prompts, templates
    seed: int = 0  # of split, cap and few-shot draws
    notes: tuple[str, ...] = ()  # what a reader must know: images capped, splits carved, files not used
    # train and val for cross-validation, the first val; none where val was given. What is in no fold is always learned
    # from: no other group of images has its class
    folds: tuple[IntArray, ...] = ()
    draw: Draw | None = None  # None: it has labels
    names_templates: bool = True  # False: nobody named templates, and a plain one stands in
    others: IntArray = field(default_factory=_nothing)  # training images that screenings embed, too
    beside: Task | None = None  # images without labels that screenings embed, too, of a partly labelled folder

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    @property
    def is_labelled(self) -> bool:
        """Whether the classes of its images are known."""
        return not bool((self.labels == UNLABELLED).all())

    @property
    def screened(self) -> IntArray:
        """Images (n,) that screenings embed with their labels: the support set; or all of a task without labels."""
        return self.support if self.is_labelled else np.arange(len(self.paths), dtype=np.int64)

    @property
    def screening_size(self) -> int:
        """How many images a screening of a candidate embeds."""
        return len(self.screened) + len(self.others) + (0 if self.beside is None else len(self.beside.paths))

    @property
    def image_ids(self) -> IntArray:
        """What measurements know each image (N,) by: its place, or without labels its content, as draws differ."""
        return np.arange(len(self.paths), dtype=np.int64) if self.draw is None else self.draw.ids

    @property
    def measured_under(self) -> str:
        """Digest under which measurements are kept, so that all draws from a pool share them."""
        return self.digest if self.draw is None else self.draw.texts

    @property
    def known_labels(self) -> IntArray | None:
        """Classes (n,) of ``screened``; None: there are no labels."""
        return self.labels[self.support] if self.is_labelled else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A pretrained model that may be tuned. Metadata only: no weights are touched to make one."""

    id: str  # unique and stable: "ViT-Mi-8-64.all-l", "ViT-B-32/laion2b_s34b_b79k", "local-dir:/models/x"
    source: str  # the row of `vlmsel_auto.models.sources.table.SOURCES` that it is of
    arch: str  # architecture name; kin of one family share its prefix
    tag: str  # pretraining tag
    path: Path | None = None  # folder of a candidate that lies on this disk
    view: ImageView
    params: int | None = None  # parameters of both towers
    flops: float | None = None  # floating-point operations (2 x multiply-adds) of one image through the visual tower
    family: str = "unknown"  # "vit", "resnet", "convnext", "efficientnet", ...
    has_text: bool = True  # False: a visual tower alone, which knows no class names
