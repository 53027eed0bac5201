"""A folder of images becomes a `records.Task`: labels, prompts, split, support set, pixels, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.errors import TaskError, WorkdirError
from vlmsel_auto.events import Sink, discard
from vlmsel_auto.records import BadFile, ImageView, IntArray, Task
from vlmsel_auto.tasks import split as splitting
from vlmsel_auto.tasks.beside import further_images, with_heap_beside
from vlmsel_auto.tasks.checks import check_classes, check_distinct, check_parts
from vlmsel_auto.tasks.identity import Identity
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.names import printable, shown
from vlmsel_auto.tasks.pixels import pixels_of
from vlmsel_auto.tasks.progress import ImageProgress
from vlmsel_auto.tasks.sample import AsManyAsFit, Sample, draw_sample
from vlmsel_auto.tasks.scan import Entry, Part, Scan
from vlmsel_auto.tasks.store import StoreEntry, open_entry
from vlmsel_auto.tasks.unlabelled import task_without_labels

_PARTS: tuple[Part, ...] = ("train", "val", "test")
FOLDS: Final = 8  # the drawn validation split is one of them: each fit learns from seven eighths
_MOST_FOLDED = 4_000  # labelled images: with more, a fifth of them tells enough
_VAL_SHARE = 0.2  # of so many
_LARGE_BYTES: Final = 2**30  # of encoded images: with more, they are not decoded before the search begins
_LARGE_NOTE: Final = (
    "more than 1 GiB of images: copies were told by their bytes, and damaged files are found when they are used"
)
_MOST_SUPPORT: Final = 1_000  # support images of such a folder
_FEWEST_SHOTS: Final = 4


def load_task(
    path: Path,
    *,
    views: Sequence[ImageView] = (),
    shots: int = 16,
    seed: int = 0,
    workdir: Path,
    sink: Sink = discard,
    max_train_images: int | None = 20_000,
    max_test_images: int | None = None,
    needs_val: bool = False,
    classes: Sequence[str] | None = None,
    unlabelled: bool = False,
    images: int | AsManyAsFit | None = None,
    draw_test: bool = True,
    exclude: Sequence[Path] = (),
) -> Task:
    """Read a task folder.

    Images are decoded once to find damaged files and copies; in a folder of more than 1 GiB both are judged by bytes
    (`identity`), a damaged file is found when it is first decoded, and the support set has at most 1,000 images, but
    four of each class. ``Task.pixels`` decodes into a view what is first read of it.

    Layouts: ``<class>/*``, ``{train,val,test}/<class>/*``, ``images`` + ``labels.csv``, ``images.parquet`` +
    ``task.json``; each but the last with an optional ``task.toml``. Where splits are missing they are drawn, seeded and
    stratified: a fifth for test, an eighth of the rest for validation (a fifth where that is more than 4,000 images).

    A folder of images without labels is a task, too, where its classes are named (docs/guide/without-labels.md): it has
    a sample of the images and no split. Of a partly labelled folder, ``labelled/<class>/*`` beside ``unlabelled/*`` or
    a ``labels.csv`` that names some images, the labelled ones are the task; screenings see some of the others, too
    (`beside`).

    Args:
        path: The task folder.
        views: Geometries that are wanted for sure: they are made while the images are decoded anyway.
        shots: Most images of a class in the support set, at least 1.
        seed: Of split, cap and support set.
        workdir: Decoded images are kept in ``workdir/pixels`` and found again by a second call on the same files.
        sink: Takes the events of stage "images", also later while ``Task.pixels`` decodes.
        max_train_images: Most images outside a given test split; more are left out by a stratified draw, unopened.
        max_test_images: Most images of a given test split, likewise; None: as many as are used outside it, at least
            `LEAST_TEST`, for a test that costs more than what is learned from would be most of a search.
        needs_val: Refuse a labelled folder from which no validation image could be drawn.
        draw_test: Draw a test split where none is given; without, ``Task.test`` is empty and labels are not lost to it.
        classes: Names of all classes; None: what task.toml, or else the labels, say.
        unlabelled: Names of folders are no classes, and labels are not used.
        images: Most images of a folder without labels, at least 1: a draw by chance, the others are not opened. None:
            all.
        exclude: Folders inside that are no part of it, beside ``workdir``.

    Returns:
        The task. ``bad_files`` names what was left out or converted, ``notes`` what else a reader should know.

    Raises:
        TaskError: The folder cannot be used; nothing was written.
        WorkdirError: The decoded images cannot be written, or the work directory is the task folder.
        MissingDependency: A folder of images.parquet without pyarrow.
    """
    most = {
        "shots": shots, "max_train_images": max_train_images, "max_test_images": max_test_images, "images": images,
    }  # fmt: skip
    for name, number in most.items():
        if isinstance(number, int) and number < 1:
            raise TaskError(f"{name} must be at least 1, but got {number!r}")
    scan = scan_folder(path, exclude=(workdir, *exclude), classes=classes, unlabelled=unlabelled)
    if workdir.resolve() == scan.root:
        raise WorkdirError(f"the work directory must not be the task folder itself, but got {str(workdir)!r}")
    sample: Sample | None = None
    if scan.labelled:
        check_classes(scan.classes, [entry.label for entry in scan.entries], left_out={})
        check_parts(scan.classes, ((entry.label, entry.part) for entry in scan.entries))
        positions, notes = splitting.capped(scan, train=max_train_images, test=max_test_images, seed=seed)
    else:
        sample = draw_sample(scan, images=images, seed=seed)
        positions, notes = sample.positions, (sample.note,)
    large = scan.source.encoded_bytes(positions) > _LARGE_BYTES
    if large:
        notes = (*notes, _LARGE_NOTE)
    if large and scan.labelled:
        shots, more = _fewer_shots(shots, classes=len(scan.classes))
        notes = (*notes, more)
    progress = ImageProgress(sink=sink, total=len(positions), text=f"reading {len(positions):,} images")
    store = open_entry(
        root=workdir / "pixels",
        key=scan.source.key(positions),
        count=len(positions),
        sources=lambda: scan.source.images(positions),
        identify="bytes" if large else "pixels",
        views=views,
        progress=progress,
        sink=sink,
    )
    try:
        if sample is None:
            task = _assemble(
                scan,
                positions=positions,
                store=store,
                shots=shots,
                seed=seed,
                notes=notes,
                needs_val=needs_val,
                draw_test=draw_test,
                sink=sink,
            )
        else:
            task = task_without_labels(scan, sample=sample, store=store, seed=seed, notes=notes, sink=sink)
    except BaseException:  # also on Ctrl+C: a refused task leaves no trace
        store.discard()
        raise
    done = f"{'looked at' if large else 'decoded'} {len(positions):,} images"
    progress.finish("known from an earlier run" if store.reused else done)
    if scan.labelled:
        task = with_heap_beside(task, scan, views=views, workdir=workdir, seed=seed, sink=sink)
    return task


def _fewer_shots(shots: int, *, classes: int) -> tuple[int, str]:
    """Shots of a large folder, and a note on what that means."""
    fewer = min(shots, max(_FEWEST_SHOTS, _MOST_SUPPORT // classes))
    sample = f"the ranking looks at a sample: at most {fewer} training images of each of the {classes:,} classes"
    return fewer, sample if fewer == shots else f"{sample}, not {shots}"


def _assemble(
    scan: Scan,
    *,
    positions: IntArray,
    store: StoreEntry,
    shots: int,
    seed: int,
    notes: tuple[str, ...],
    needs_val: bool,
    draw_test: bool,
    sink: Sink,
) -> Task:
    """Everything that follows once it is known which files are images, and which show the same."""
    entries = [scan.entries[place] for place in positions]
    good = _usable(scan, entries=entries, rows=store.identities)
    good, copies = splitting.settle_copies(good, entries=entries, digests=[row.digest for row in store.identities])
    number = {label: k for k, label in enumerate(scan.classes)}
    labels = np.array([number[entries[place].label] for place in good], dtype=np.int64)
    digests = [store.identities[place].digest for place in good]
    check_parts(scan.classes, ((entries[i].label, entries[i].part) for i in good), why=" after copies were left out")
    check_distinct(scan.classes, labels=labels, digests=digests)
    groups, given = _groups(digests), [entries[place].part for place in good]
    parts, split_notes = _split(labels, groups, given=given, draw_test=draw_test, seed=seed)
    if needs_val and not len(parts.val):
        raise TaskError(
            "a search needs validation images, so at least one class must have three different images; add some, "
            f"but got two of each in {str(scan.root)!r}"
        )
    support = splitting.few_shot(labels, parts.train, shots=shots, seed=seed)
    told, prompts = scan.declaration, scan.prompts
    odd = [
        BadFile(path=printable(entry.path), reason=row.note, used=bool(row.digest))
        for entry, row in zip(entries, store.identities, strict=True)
        if row.note
    ]
    folds = () if "val" in given else _folds(parts, labels, groups, seed=seed)
    peers = _peers(parts, labels, folds)
    pixels = pixels_of(scan, positions=positions, store=store, good=good, peers=peers, sink=sink)
    return Task(
        name=told.name,
        root=scan.root,
        classes=scan.classes,
        prompts=prompts,
        templates=told.templates,
        domain=told.domain,
        metric=told.metric,
        paths=tuple(entries[place].path for place in good),
        labels=labels,
        train=parts.train,
        val=parts.val,
        test=parts.test,
        support=support,
        others=further_images(parts.train, support, seed=seed),
        shots=shots,
        bad_files=tuple(sorted([*scan.stray, *odd, *copies], key=lambda one: (one.used, one.path))),
        pixels=pixels,
        digest=digest(
            list(scan.classes),
            list(prompts),
            list(told.templates),
            told.metric,
            list(digests),
            *[_plain(one) for one in (labels, parts.train, parts.val, parts.test, support)],
        ),
        seed=seed,
        notes=(*scan.notes, *notes, *split_notes),
        folds=folds,
    )


def _plain(values: IntArray) -> list[Json]:
    return [int(value) for value in values]


def _usable(scan: Scan, *, entries: Sequence[Entry], rows: Sequence[Identity]) -> list[int]:
    """Positions of the images that could be decoded, if they still make a task."""
    good = [place for place, row in enumerate(rows) if row.digest]
    left_out: dict[str, list[str]] = {}
    for entry, row in zip(entries, rows, strict=True):
        if not row.digest:
            left_out.setdefault(entry.label, []).append(f"{printable(entry.path)}: {row.note}")
    if not good:
        lost = [one for several in left_out.values() for one in several]
        raise TaskError(f"no image was found: not one file can be decoded, but got {shown(lost)}")
    check_classes(scan.classes, [entries[place].label for place in good], left_out=left_out)
    for part in _PARTS:
        if any(entry.part == part for entry in entries) and not any(entries[place].part == part for place in good):
            raise TaskError(f"no image of the given {part} split can be decoded ({scan.root})")
    return good


def _groups(digests: Sequence[str]) -> IntArray:
    """(N,) equal numbers for copies of the same image."""
    first = {one: place for place, one in reversed(list(enumerate(digests)))}
    return np.array([first[one] for one in digests], dtype=np.int64)


def _folds(parts: splitting.Split, labels: IntArray, groups: IntArray, *, seed: int) -> tuple[IntArray, ...]:
    """Validation and training images in parts, by which heads are cross-validated."""
    if not len(parts.val) or len(parts.train) + len(parts.val) > _MOST_FOLDED:
        return ()
    rest = splitting.folds(labels[parts.train], groups[parts.train], count=FOLDS - 1, seed=seed)
    return (parts.val, *(parts.train[each] for each in rest))


def _peers(parts: splitting.Split, labels: IntArray, folds: Sequence[IntArray]) -> IntArray:
    """(N,) equal for images of one class that are trained on, or held out, together."""
    group = np.zeros_like(labels)
    for number, members in enumerate((parts.val, parts.test, *folds), start=1):
        group[members] = number
    return labels * (int(group.max()) + 1) + group


def _split(
    labels: IntArray, groups: IntArray, *, given: Sequence[Part | None], draw_test: bool, seed: int
) -> tuple[splitting.Split, tuple[str, ...]]:
    """The given parts, and drawn ones for what is missing, with a line on what was drawn."""
    train, val, test = (np.flatnonzero([one == part for one in given]).astype(np.int64) for part in _PARTS)
    labelled = len(labels) - len(test) if len(test) or not draw_test else round(0.8 * len(labels))
    share = 1 / FOLDS if labelled <= _MOST_FOLDED else _VAL_SHARE
    if not draw_test and not (len(train) or len(val) or len(test)):
        train = np.arange(len(labels), dtype=np.int64)
    elif draw_test and not (len(val) or len(test)):
        parts = splitting.three_way(labels, groups, seed=seed, val=share)
        empty = ("no class has three different images: the validation split is empty",) if not len(parts.val) else ()
        told = f"of each class 20 % were drawn for test, {100 * share:.3g} % of the rest for validation"
        return parts, (f"no split was given: {told}", *empty)
    if not len(val):
        kept, taken = splitting.carve(labels[train], groups[train], seed=seed, share=share)
        note = f"no validation split was given: {100 * share:.3g} % of train were drawn within each class"
        return splitting.Split(train=train[kept], val=train[taken], test=test), (note,)
    if not len(test) and draw_test:
        kept, taken = splitting.carve(labels[train], groups[train], seed=seed)
        note = "no test split was given: 20 % of train were drawn within each class"
        return splitting.Split(train=train[kept], val=val, test=train[taken]), (note,)
    return splitting.Split(train=train, val=val, test=test), ()
