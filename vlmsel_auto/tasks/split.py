"""Which image goes where: seeded, stratified splits and folds, few-shot draws, caps on very many.

Every class draws from a generator of its own, so one class's files do not move the split of another. Copies of one
image (one "group") always stay together. n: images, K: classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from vlmsel_auto.records import IntArray
from vlmsel_auto.tasks.scan import Scan, SplitName

SPLITS: Final[tuple[SplitName, ...]] = ("train", "val", "test")
FOLDS: Final = 8  # the drawn validation split is one of them: each fit learns from seven eighths
LEAST_TEST: Final = 1_000  # images: a share of .85 has a standard error of .011 then; our own choice
SCREENED: Final = 160  # images that a screening embeds, with the support set: as many as a library's cells are made of
_MOST_FOLDED = 4_000  # labelled images: with more, a fifth of them tells enough
SHARE: Final = 0.2  # of a class, for test; for validation, where images are so many
_MIN_KEPT = 3  # images of a stratum that a cap never takes: enough for one each of train, val and test
_THREE = 3  # from here on a class has all three splits


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Sorted positions of the three splits."""

    train: IntArray
    val: IntArray
    test: IntArray
    note: str = ""  # what was drawn


def split_of(
    labels: IntArray, groups: IntArray, *, given: Sequence[SplitName | None], draw_test: bool, seed: int
) -> Split:
    """The given splits, and drawn ones for what is missing.

    Args:
        labels: (n,) class of each image.
        groups: (n,) equal for copies of the same image.
        given: (n,) split of each image, or all None.
        draw_test: Whether a test split is drawn where none is given.
        seed: Of the draws.
    """
    train, val, test = (np.flatnonzero([one == name for one in given]).astype(np.int64) for name in SPLITS)
    labelled = len(labels) - len(test) if len(test) or not draw_test else round(0.8 * len(labels))
    share = share_of_val(labelled)
    if not draw_test and not (len(train) or len(val) or len(test)):
        train = np.arange(len(labels), dtype=np.int64)
    elif draw_test and not (len(val) or len(test)):
        return three_way(labels, groups, seed=seed, val=share)
    if not len(val):
        kept, taken = carve(labels[train], groups[train], seed=seed, share=share)
        note = f"no validation split was given: {100 * share:.3g} % of train were drawn within each class"
        return Split(train=train[kept], val=train[taken], test=test, note=note)
    if not len(test) and draw_test:
        kept, taken = carve(labels[train], groups[train], seed=seed)
        note = "no test split was given: 20 % of train were drawn within each class"
        return Split(train=train[kept], val=val, test=train[taken], note=note)
    return Split(train=train, val=val, test=test)


def is_folded(labelled: int) -> bool:
    """Whether so many labelled images, those for test apart, are divided into folds."""
    return labelled <= _MOST_FOLDED


def share_of_val(labelled: int) -> float:
    """Share of so many labelled images that a drawn validation split takes."""
    return 1 / FOLDS if is_folded(labelled) else SHARE


def three_way(labels: IntArray, groups: IntArray, *, seed: int, val: float) -> Split:
    """Split within each class: a fifth to test, and of the rest the share ``val``, in (0, 1), to val.

    A class of three or more different images gives at least one to each split; a class of two one to train and one to
    test; a class of one goes to train.
    """

    def sizes(n: int) -> tuple[int, int]:
        tested = max(1, round(SHARE * n)) if n > 1 else 0
        return tested, max(1, round(val * (n - tested))) if n >= _THREE else 0

    train, tested, chosen = _drawn(labels, groups, seed=(seed, 1), sizes=sizes)
    note = f"no split was given: of each class 20 % were drawn for test, {100 * val:.3g} % of the rest for validation"
    if not len(chosen):
        note += "; no class has three different images: the validation split is empty"
    return Split(train=train, val=chosen, test=tested, note=note)


def carve(labels: IntArray, groups: IntArray, *, seed: int, share: float = SHARE) -> tuple[IntArray, IntArray]:
    """Sorted positions (kept, taken) where a stratified share, in (0, 1), is taken out of a split that was given.

    Of each class of two groups or more at least one is taken, and never the whole class.
    """
    kept, taken = _drawn(labels, groups, seed=(seed, 2), sizes=lambda n: (min(max(1, round(share * n)), n - 1),))
    return kept, taken


def _drawn(
    labels: IntArray, groups: IntArray, *, seed: tuple[int, int], sizes: Callable[[int], tuple[int, ...]]
) -> list[IntArray]:
    """Sorted positions of what stays, and of what is drawn: of n groups of a class ``sizes(n)``, one after another."""
    where, drawn = np.zeros(len(labels), dtype=np.int64), len(sizes(1))
    for label in np.unique(labels):
        members = _shuffled_groups(labels, groups, label=int(label), seed=seed)
        ends = np.cumsum([0, *sizes(len(members))]).tolist()
        for number, (first, end) in enumerate(pairwise(ends), start=1):
            for group in members[first:end]:
                where[list(group)] = number
    return [np.flatnonzero(where == number).astype(np.int64) for number in range(drawn + 1)]


def folds_of(split: Split, labels: IntArray, groups: IntArray, *, seed: int) -> tuple[IntArray, ...]:
    """Validation and training images in folds, by which heads are cross-validated; none where there are very many."""
    if not len(split.val) or not is_folded(len(split.train) + len(split.val)):
        return ()
    rest = folds(labels[split.train], groups[split.train], count=FOLDS - 1, seed=seed)
    return (split.val, *(split.train[each] for each in rest))


def folds(labels: IntArray, groups: IntArray, *, count: int, seed: int) -> tuple[IntArray, ...]:
    """Sorted positions of ``count`` folds of nearly the same classes; empty ones are left out."""
    fold = np.zeros(len(labels), dtype=np.int64)
    for shift, label in enumerate(np.unique(labels)):
        for place, members in enumerate(_shuffled_groups(labels, groups, label=int(label), seed=(seed, 6))):
            fold[list(members)] = (place + shift) % count  # small classes do not all begin in the same fold
    found = (np.flatnonzero(fold == number).astype(np.int64) for number in range(count))
    return tuple(each for each in found if len(each))


def _shuffled_groups(labels: IntArray, groups: IntArray, *, label: int, seed: tuple[int, int]) -> list[tuple[int, ...]]:
    """The groups of one class, in seeded order; groups are numbered by their first member."""
    members: dict[int, list[int]] = {}
    for place in np.flatnonzero(labels == label):
        members.setdefault(int(groups[place]), []).append(int(place))
    listed = [tuple(group) for group in members.values()]
    order = np.random.default_rng([*seed, label]).permutation(len(listed))
    return [listed[place] for place in order]


def few_shot(labels: IntArray, train: IntArray, *, shots: int, seed: int) -> IntArray:
    """Sorted positions of at most ``shots`` images a class, drawn from ``train``: fewer shots are a subset of more.

    Raises:
        ValueError: no shot.
    """
    if shots < 1:
        raise ValueError(f"shots must be at least 1, but got {shots!r}")
    strata = labels[train]
    return np.sort(train[_of_each(strata, [shots] * len(np.unique(strata)), seed=(seed, 3))])


def further_images(train: IntArray, support: IntArray, *, seed: int) -> IntArray:
    """Training images outside the support set that screenings see, too, sorted: so many that there are 160 with it.

    What signals of unlabelled images say of a handful is mostly noise (docs/results/ranking.md has the figures).
    """
    rest = np.setdiff1d(train, support)
    drawn = np.random.default_rng([seed, 7]).permutation(rest)[: max(0, SCREENED - len(support))]
    return np.sort(drawn).astype(np.int64)


def stratified_cap(strata: IntArray, *, cap: int, seed: int) -> IntArray:
    """Sorted positions of about ``cap`` items with the strata in proportion, at least three of each that has them.

    ``strata`` (n,) are numbers of strata; more than ``cap`` stay only where three of each are more.
    """
    if len(strata) <= cap:
        return np.arange(len(strata), dtype=np.int64)
    _, counts = np.unique(strata, return_counts=True)
    return _of_each(strata, _quotas(counts, cap=cap), seed=(seed, 4))


def _of_each(strata: IntArray, quotas: Sequence[int], *, seed: tuple[int, int]) -> IntArray:
    """Sorted positions of so many of each stratum, drawn by chance."""
    kept: list[int] = []
    for name, quota in zip(np.unique(strata), quotas, strict=True):
        members = np.flatnonzero(strata == name)
        order = np.random.default_rng([*seed, int(name)]).permutation(len(members))
        kept.extend(members[order[:quota]].tolist())
    return np.array(sorted(kept), dtype=np.int64)


def _quotas(counts: IntArray, *, cap: int) -> list[int]:
    """Shares of ``cap`` in proportion to ``counts``, but no less than the floor; rounded by largest remainders."""
    floor = np.minimum(counts, _MIN_KEPT)
    quotas = floor.copy()
    free = np.ones(len(counts), dtype=bool)  # strata whose proportional share is above their floor
    while free.any():
        room = cap - int(floor[~free].sum())
        exact = np.where(free, counts * (room / int(counts[free].sum())), 0.0)
        short = free & (exact < floor)
        if not short.any():
            quotas[free] = np.floor(exact[free]).astype(np.int64)
            left = room - int(quotas[free].sum())
            remainder = np.where(free, exact - quotas, -1.0)
            quotas[np.argsort(-remainder, kind="stable")[:left]] += 1
            break
        free &= ~short
    return [int(value) for value in quotas]


def capped(scan: Scan, *, train: int | None, test: int | None, seed: int) -> tuple[IntArray, tuple[str, ...]]:
    """Sorted positions of the entries to use, and notes on what is left out.

    Args:
        scan: the folder.
        train: most images outside a given test split; None: all.
        test: most images of a given test split; None: as many as are used outside it, at least `LEAST_TEST`.
        seed: of the draws.
    """
    is_test = np.array([entry.split == "test" for entry in scan.entries])
    others, tested = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    kept, notes = _capped(scan, others, cap=train, seed=seed, what="images outside the given test split")
    most = max(LEAST_TEST, len(kept)) if test is None else test
    shown, more = _capped(scan, tested, cap=most, seed=seed, what="images of the given test split")
    return np.sort(np.concatenate([kept, shown])), (*notes, *more)


def _capped(scan: Scan, places: IntArray, *, cap: int | None, seed: int, what: str) -> tuple[IntArray, tuple[str, ...]]:
    """At most ``cap`` of these entries, classes and splits in proportion, and a note where some are left out."""
    if cap is None or len(places) <= cap:
        return places, ()
    names: dict[tuple[str, SplitName | None], int] = {}
    strata = [names.setdefault((scan.entries[i].label, scan.entries[i].split), len(names)) for i in places]
    kept = places[stratified_cap(np.array(strata, dtype=np.int64), cap=cap, seed=seed)]
    return kept, (f"{len(kept):,} of {len(places):,} {what} were used (stratified draw)",)
