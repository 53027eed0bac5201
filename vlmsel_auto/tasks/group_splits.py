"""Splits and folds that keep groups of images together, drawn by scikit-learn's StratifiedGroupKFold.

A group may hold images of several classes. What a class needs to be learned at all is not held out: of a class in one
group, this group; `too_few` says whose classes are not judged for that. n: images.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vlmsel_auto.records import IntArray
from vlmsel_auto.tasks.file_names import shown
from vlmsel_auto.tasks.scan import SplitName
from vlmsel_auto.tasks.split import FOLDS, SHARE, SPLITS, Split, is_folded, share_of_val


def joined(digests: Sequence[str], names: Sequence[str]) -> IntArray:
    """(n,) equal for images that are copies or share a name, directly or by way of others; an empty name is none."""
    alone, number = count(), dict[object, int]()
    keys = [*digests, *((name,) if name else next(alone) for name in names)]
    columns = len(digests) + np.array([number.setdefault(key, len(number)) for key in keys])
    rows, size = np.tile(np.arange(len(digests)), 2), len(digests) + len(number)
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    _, found = connected_components(links, directed=False)
    return np.asarray(found[: len(digests)], dtype=np.int64)


def grouped_split(
    labels: IntArray, groups: IntArray, *, given: Sequence[SplitName | None], draw_test: bool, seed: int
) -> Split:
    """As `split.split_of`, where ``groups`` (n,) are more than copies: the shares are those of images, about."""
    train, val, test = (np.flatnonzero([one == name for one in given]).astype(np.int64) for name in SPLITS)
    drawn = []
    if not (len(train) or len(val) or len(test)):
        train = np.arange(len(labels), dtype=np.int64)
    if draw_test and not len(test):
        train, test = _held_out(train, labels, groups, share=SHARE, seed=seed)
        drawn.append(f"{_number(groups[test]):,} of them ({len(test):,} images) for test")
    if not len(val):
        share = share_of_val(len(train))
        train, val = _held_out(train, labels, groups, share=share, seed=seed)
        drawn.append(f"{_number(groups[val]):,} ({len(val):,} images) for validation")
    note = f"groups of images stay together: {_number(groups):,}"
    return Split(train=train, val=val, test=test, note=f"{note}; drawn were {', '.join(drawn)}" if drawn else note)


def grouped_folds(split: Split, labels: IntArray, groups: IntArray, *, seed: int) -> tuple[IntArray, ...]:
    """As `split.folds_of`; images that a class cannot be learned without are in no fold."""
    known = np.sort(np.concatenate([split.train, split.val]))
    if not len(split.val) or not is_folded(len(known)):
        return ()
    needed = known[_needed(labels[known], groups[known])]
    free = np.setdiff1d(split.train, needed)
    fold = _folds(labels[free], groups[free], most=FOLDS - 1, seed=seed)
    return (split.val, *(free[fold == number] for number in np.unique(fold)))


def _number(groups: IntArray) -> int:
    return len(np.unique(groups))


def _needed(labels: IntArray, groups: IntArray) -> NDArray[np.bool_]:
    """(n,) whether an image's group is the only one of a class."""
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    kinds, counts = np.unique(pairs[0], return_counts=True)
    return np.isin(groups, pairs[1, np.isin(pairs[0], kinds[counts == 1])])


def _folds(labels: IntArray, groups: IntArray, *, most: int, seed: int) -> IntArray:
    """(n,) number of each image's fold, of at most so many."""
    from sklearn.model_selection import StratifiedGroupKFold  # half a second of imports

    fold, number = np.zeros(len(labels), dtype=np.int64), min(most, _number(groups))
    number = min(number, int(np.bincount(labels).max())) if len(labels) else 0
    if number > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes with fewer images than folds
            drawn = StratifiedGroupKFold(number, shuffle=True, random_state=seed).split(labels, labels, groups)
            for place, (_, taken) in enumerate(drawn):
                fold[taken] = place
    return fold


def _held_out(
    pool: IntArray, labels: IntArray, groups: IntArray, *, share: float, seed: int
) -> tuple[IntArray, IntArray]:
    """Sorted images of ``pool`` that stay, and about this share of them in whole groups; every class stays.

    Of the folds of that size it is the one that misses the fewest classes, then the one nearest to the share.
    """
    labels, groups = labels[pool], groups[pool]
    free = np.flatnonzero(~_needed(labels, groups))
    fold = _folds(labels[free], groups[free], most=round(1 / share), seed=seed)
    tried = [_without_needed(free[fold == number], labels, groups) for number in np.unique(fold)]
    taken = min(
        tried,
        key=lambda one: (-len(np.unique(labels[one])), abs(len(one) - share * len(pool))),
        default=np.empty(0, dtype=np.int64),
    )
    return np.delete(pool, taken), pool[taken]


def _without_needed(taken: IntArray, labels: IntArray, groups: IntArray) -> IntArray:
    """What can be taken of these so that every class keeps a group."""
    while len(lost := np.setdiff1d(labels, np.delete(labels, taken))):
        taken = taken[groups[taken] != groups[taken][labels[taken] == lost[0]][0]]
    return taken


def too_few(classes: Sequence[str], labels: IntArray, *, judged: Sequence[tuple[str, IntArray]]) -> tuple[str, ...]:
    """A warning for each part, such as validation, that has no image of some classes."""
    found = []
    for part, images in judged:
        missing = [name for k, name in enumerate(classes) if k in labels and k not in labels[images]]
        if missing:
            found.append(
                f"too few groups of images: {part} says nothing of {len(missing):,} of {len(classes):,} classes, whose "
                f"images are all learned from: {shown(missing)}; a class needs three groups, or two without a test "
                "split (--no-test-split)"
            )
    return tuple(found)


def torn(names: Sequence[str], splits: Sequence[SplitName | None]) -> str:
    """A warning where groups stand in several of the given splits; empty: they do not."""
    seen: dict[str, set[SplitName]] = {}
    for name, part in zip(names, splits, strict=True):
        if name and part is not None:
            seen.setdefault(name, set()).add(part)
    several = [f"{name} in {' and '.join(sorted(parts))}" for name, parts in seen.items() if len(parts) > 1]
    if not several:
        return ""
    return (
        f"groups of images in several of the splits that the folder gives: {len(several):,} ({shown(several)}); "
        "figures on them promise too much. Without given splits, groups stay together"
    )
