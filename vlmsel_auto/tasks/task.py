"""A folder of images becomes a `records.Task`: labels, prompts, split, support set, pixels, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.errors import TaskError, WorkdirError
from vlmsel_auto.events import Notice, Sink, discard
from vlmsel_auto.records import ImageView, IntArray, Task
from vlmsel_auto.tasks.copies import settle_copies
from vlmsel_auto.tasks.file_names import printable
from vlmsel_auto.tasks.group_names import Groups, group_names
from vlmsel_auto.tasks.group_splits import grouped_folds, grouped_split, joined, too_few, torn
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.known_images import KnownImages, Reading, known_images
from vlmsel_auto.tasks.requirements import check_classes, check_distinct, check_splits
from vlmsel_auto.tasks.scan import Scan, SplitName
from vlmsel_auto.tasks.split import SPLITS, Split, capped, few_shot, folds_of, further_images, split_of
from vlmsel_auto.tasks.unlabelled_pool import AsManyAsFit, draw_sample, task_without_labels, with_pool_beside

_LARGE_BYTES: Final = 2**30  # of encoded images: with more, they are not decoded before the search begins
_LARGE_NOTE: Final = (
    "more than 1 GiB of images: copies were told by their bytes, and damaged files are found when they are used"
)
_MOST_SUPPORT: Final = 1_000  # support images of such a folder
_FEWEST_SHOTS: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskOptions:
    """What is used of a task folder.

    Raises:
        TaskError: a number below 1.
    """

    shots: int = 16  # most images of a class in the support set
    seed: int = 0  # of split, cap and support set
    classes: Sequence[str] | None = None  # names of all classes; None: what task.toml, or else the labels, say
    unlabelled: bool = False  # names of folders are no classes, and labels are not used
    images: int | AsManyAsFit | None = None  # most of a folder without labels, drawn by chance; None: all
    draw_test: bool = True  # where no test split is given; without, `Task.test` is empty and labels are not lost to it
    groups: Groups | None = None  # images that stay together in splits and folds; None: what the folder says
    needs_val: bool = False  # refuse a labelled folder from which no validation image could be drawn
    max_train_images: int | None = 20_000  # outside a given test split; of more a stratified draw, the rest unopened
    # of a given test split, likewise; None: as many as are used outside it, at least 1,000, for a test that costs more
    # than what is learned from would be most of a search
    max_test_images: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("shots", "max_train_images", "max_test_images", "images"):
            number = getattr(self, name)
            if isinstance(number, int) and number < 1:
                raise TaskError(f"{name} must be at least 1, but got {number!r}")


def load_task(
    path: Path,
    options: TaskOptions | None = None,
    *,
    workdir: Path,
    views: Sequence[ImageView] = (),
    exclude: Sequence[Path] = (),
    sink: Sink = discard,
) -> Task:
    """Read a task folder.

    Images are decoded once to find damaged files and copies; in a folder of more than 1 GiB both are judged by bytes
    (`copies`), a damaged file is found when it is first decoded, and the support set has at most 1,000 images, but
    four of each class. ``Task.pixels`` decodes into a view what is first read of it.

    Layouts: ``<class>/*``, ``{train,val,test}/<class>/*``, ``images`` + ``labels.csv``, ``images.parquet`` +
    ``task.json``; each but the last with an optional ``task.toml``. Where splits are missing they are drawn, seeded and
    stratified: a fifth for test, an eighth of the rest for validation (a fifth where that is more than 4,000 images).

    A folder of images without labels is a task, too, where its classes are named (docs/guide/without-labels.md): it has
    a sample of the images and no split. Of a partly labelled folder, ``labelled/<class>/*`` beside ``unlabelled/*`` or
    a ``labels.csv`` that names some images, the labelled ones are the task; screenings see some of the others, too.

    Args:
        path: The task folder.
        options: What is used of it.
        workdir: Decoded images are kept in ``workdir/pixels`` and found again by a second call on the same files.
        views: Geometries that are wanted for sure: they are made while the images are decoded anyway.
        exclude: Folders inside that are no part of it, beside ``workdir``.
        sink: Takes the events of stage "images", also later while ``Task.pixels`` decodes.

    Returns:
        The task. ``bad_files`` names what was left out or converted, ``notes`` what else a reader should know.

    Raises:
        TaskError: The folder cannot be used; no image of it is kept.
        WorkdirError: The decoded images cannot be written, or the work directory is the task folder.
        MissingDependency: A folder of images.parquet without pyarrow.
    """
    options = options or TaskOptions()
    scan = scan_folder(path, exclude=(workdir, *exclude), classes=options.classes, unlabelled=options.unlabelled)
    if workdir.resolve() == scan.root:
        raise WorkdirError(f"the work directory must not be the task folder itself, but got {str(workdir)!r}")
    reading = Reading(workdir=workdir, views=views, sink=sink)
    if scan.labelled:
        return with_pool_beside(_labelled_task(scan, options, reading=reading), scan, reading=reading)
    sample = draw_sample(scan, images=options.images, seed=options.seed)
    large = _is_large(scan, sample.positions)
    with known_images(scan, sample.positions, by="bytes" if large else "pixels", reading=reading) as images:
        notes = (sample.note, _LARGE_NOTE) if large else (sample.note,)
        return task_without_labels(images, sample=sample, seed=options.seed, notes=notes)


def _is_large(scan: Scan, positions: IntArray) -> bool:
    return scan.source.encoded_bytes(positions) > _LARGE_BYTES


def _labelled_task(scan: Scan, options: TaskOptions, *, reading: Reading) -> Task:
    check_classes(scan.classes, [entry.label for entry in scan.entries], left_out={})
    check_splits(scan.classes, ((entry.label, entry.split) for entry in scan.entries))
    most_train, most_test, shots = options.max_train_images, options.max_test_images, options.shots
    positions, notes = capped(scan, train=most_train, test=most_test, seed=options.seed)
    large = _is_large(scan, positions)
    if large:
        fewer = min(shots, max(_FEWEST_SHOTS, _MOST_SUPPORT // len(scan.classes)))
        sample = f"at most {fewer} training images of each of the {len(scan.classes):,} classes"
        sample += "" if fewer == shots else f", not {shots}"
        notes, shots = (*notes, _LARGE_NOTE, f"the ranking looks at a sample: {sample}"), fewer
    every = [*(entry.path for entry in scan.entries), *scan.unlabelled]
    listed = [*(entry.group for entry in scan.entries), *[""] * len(scan.unlabelled)]
    names = group_names(every, listed=listed, declared=scan.declaration.group, groups=options.groups)
    with known_images(scan, positions, by="bytes" if large else "pixels", reading=reading) as images:
        return _assemble(images, options, shots=shots, notes=notes, names=[names[place] for place in positions])


def _assemble(
    images: KnownImages, options: TaskOptions, *, shots: int, notes: tuple[str, ...], names: Sequence[str]
) -> Task:
    """Everything that follows once it is known which files are images, and which show the same or have one group."""
    scan, entries, told = images.scan, images.entries, images.scan.declaration
    good, copies = settle_copies(_usable(images), entries=entries, digests=[row.digest for row in images.identities])
    digests, given = [images.identities[place].digest for place in good], [entries[place].split for place in good]
    number = {label: k for k, label in enumerate(scan.classes)}
    labels = np.array([number[entries[place].label] for place in good], dtype=np.int64)
    check_splits(scan.classes, ((entries[i].label, entries[i].split) for i in good), why=" after copies were left out")
    check_distinct(scan.classes, labels=labels, digests=digests)
    names = [names[place] for place in good]
    groups, is_grouped = joined(digests, names), any(names)
    draw, draw_folds = (grouped_split, grouped_folds) if is_grouped else (split_of, folds_of)
    split = draw(labels, groups, given=given, draw_test=options.draw_test, seed=options.seed)
    if options.needs_val and not len(split.val):
        kind = "groups" if is_grouped else "different images"
        raise TaskError(
            f"a search needs validation images, so at least one class must have three {kind}, or two without a test "
            f"split (--no-test-split); add some, but got fewer of each in {str(scan.root)!r}"
        )
    folds = () if "val" in given else draw_folds(split, labels, groups, seed=options.seed)
    support = few_shot(labels, split.train, shots=shots, seed=options.seed)
    parts = [_plain(one) for one in (labels, split.train, split.val, split.test, support)]
    parts += [_plain(groups)] if is_grouped else []  # folds follow from them
    doubts = [torn(names, given), *_unjudged(scan.classes, labels, split, folds, given)] if is_grouped else []
    for text in filter(None, doubts):
        images.sink(Notice(text=text, level="warning"))
    texts: list[Json] = [list(scan.classes), list(scan.prompts), list(told.templates)]
    task = images.task(
        good,
        labels=labels,
        peers=_peers(split, labels, folds),
        copies=copies,
        digest=digest(*texts, told.metric, list(digests), *parts),
    )
    return replace(
        task,
        train=split.train,
        val=split.val,
        test=split.test,
        support=support,
        others=further_images(split.train, support, seed=options.seed),
        shots=shots,
        seed=options.seed,
        notes=(*scan.notes, *notes, *filter(None, (split.note, *doubts))),
        folds=folds,
    )


def _unjudged(
    classes: Sequence[str], labels: IntArray, split: Split, folds: Sequence[IntArray], given: Sequence[SplitName | None]
) -> tuple[str, ...]:
    """Warnings of classes of which the drawn validation images, or test images, say nothing."""
    val = np.concatenate(folds) if folds else split.val
    drawn = {"validation": ("val", val), "test": ("test", split.test)}
    judged = [(part, rows) for part, (name, rows) in drawn.items() if name not in given and len(rows)]
    return too_few(classes, labels, judged=judged)


def _plain(values: IntArray) -> list[Json]:
    return [int(value) for value in values]


def _usable(images: KnownImages) -> list[int]:
    """Places of the images that could be decoded, if they still make a task."""
    scan, entries, good = images.scan, images.entries, images.usable()
    left_out: dict[str, list[str]] = {}
    for entry, row in zip(entries, images.identities, strict=True):
        if not row.digest:
            left_out.setdefault(entry.label, []).append(f"{printable(entry.path)}: {row.note}")
    check_classes(scan.classes, [entries[place].label for place in good], left_out=left_out)
    lost = {entry.split for entry in entries} - {entries[place].split for place in good}
    for split in SPLITS:
        if split in lost:
            raise TaskError(f"no image of the given {split} split can be decoded ({scan.root})")
    return good


def _peers(split: Split, labels: IntArray, folds: Sequence[IntArray]) -> IntArray:
    """(N,) equal for images of one class that are trained on, or held out, together."""
    group = np.zeros_like(labels)
    for number, members in enumerate((split.val, split.test, *folds), start=1):
        group[members] = number
    return labels * (int(group.max()) + 1) + group
