"""Which image goes where: seeded, stratified splits, copies of one image in several places, caps on very many.

Every class draws from a generator of its own, so one class's files do not move the split of another. Copies of one
image (one "group") always stay together. n: images, K: classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vlmsel_auto.records import BadFile, IntArray
from vlmsel_auto.tasks.left_out import a_copy
from vlmsel_auto.tasks.scan import Entry, Part, Scan

_MIN_KEPT = 3  # images of a stratum that a cap never takes: enough for one each of train, val and test
_THREE = 3  # from here on a class has all three parts
_SHARE = 0.2  # of a class, for test
LEAST_TEST: Final = 1_000  # images: a share of .85 has a standard error of .011 then; our own choice


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Sorted positions of the three parts."""

    train: IntArray
    val: IntArray
    test: IntArray


def three_way(labels: IntArray, groups: IntArray, *, seed: int, val: float) -> Split:
    """Split within each class: a fifth to test, and of the rest the share ``val`` to val.

    A class of three or more different images gives at least one to each part; a class of two one to train and one to
    test; a class of one goes to train.

    Args:
        labels: (n,) class of each image.
        groups: (n,) equal for copies of the same image; a group has one label.
        seed: Of the draw.
        val: In (0, 1).
    """
    for_val: list[int] = []
    test: list[int] = []
    for label in np.unique(labels):
        members = _shuffled_groups(labels, groups, label=int(label), seed=(seed, 1))
        n = len(members)
        n_test = max(1, round(_SHARE * n)) if n > 1 else 0
        n_val = max(1, round(val * (n - n_test))) if n >= _THREE else 0
        test.extend(_flat(members[:n_test]))
        for_val.extend(_flat(members[n_test : n_test + n_val]))
    return _parts(len(labels), val=for_val, test=test)


def carve(labels: IntArray, groups: IntArray, *, seed: int, share: float = _SHARE) -> tuple[IntArray, IntArray]:
    """Take a stratified share out of a split that was given.

    Args:
        labels: (n,) class of each image.
        groups: (n,) equal for copies of the same image.
        seed: Of the draw.
        share: In (0, 1); at least one group of each class of two or more, never the whole class.

    Returns:
        Sorted positions (kept, taken).
    """
    taken: list[int] = []
    for label in np.unique(labels):
        members = _shuffled_groups(labels, groups, label=int(label), seed=(seed, 2))
        n = len(members)
        count = min(max(1, round(share * n)), n - 1)
        taken.extend(_flat(members[:count]))
    mask = np.zeros(len(labels), dtype=bool)
    mask[taken] = True
    return np.flatnonzero(~mask).astype(np.int64), np.flatnonzero(mask).astype(np.int64)


def folds(labels: IntArray, groups: IntArray, *, count: int, seed: int) -> tuple[IntArray, ...]:
    """Divide images into parts of nearly the same classes.

    Args:
        labels: (n,) class of each image.
        groups: (n,) equal for copies of the same image.
        count: at most so many parts; empty ones are left out.
        seed: Of the draw.

    Returns:
        Sorted positions of each part.
    """
    part = np.zeros(len(labels), dtype=np.int64)
    for shift, label in enumerate(np.unique(labels)):
        for place, members in enumerate(_shuffled_groups(labels, groups, label=int(label), seed=(seed, 6))):
            part[list(members)] = (place + shift) % count  # small classes do not all begin in the same part
    found = (np.flatnonzero(part == number).astype(np.int64) for number in range(count))
    return tuple(each for each in found if len(each))


def few_shot(labels: IntArray, train: IntArray, *, shots: int, seed: int) -> IntArray:
    """Draw at most ``shots`` images a class from train.

    Args:
        labels: (N,) class of every image.
        train: Positions to draw from.
        shots: At least 1.
        seed: Of the draw.

    Returns:
        Sorted positions. A smaller ``shots`` gives a subset of a larger one.

    Raises:
        ValueError: no shot.
    """
    if shots < 1:
        raise ValueError(f"shots must be at least 1, but got {shots!r}")
    chosen: list[int] = []
    for label in np.unique(labels[train]):
        members = train[labels[train] == label]
        order = np.random.default_rng([seed, 3, int(label)]).permutation(len(members))
        chosen.extend(int(members[place]) for place in order[:shots])
    return np.array(sorted(chosen), dtype=np.int64)


def stratified_cap(strata: IntArray, *, cap: int, seed: int) -> IntArray:
    """Keep about ``cap`` items with the strata in proportion, at least three of each stratum that has them.

    Args:
        strata: (n,) number of the stratum of each item.
        cap: At least 1. Exceeded only where the strata are so many that three of each are more.
        seed: Of the draw.

    Returns:
        Sorted positions of the kept items.
    """
    n = len(strata)
    if n <= cap:
        return np.arange(n, dtype=np.int64)
    names, counts = np.unique(strata, return_counts=True)
    kept: list[int] = []
    for name, quota in zip(names, _quotas(counts, cap=cap), strict=True):
        members = np.flatnonzero(strata == name)
        order = np.random.default_rng([seed, 4, int(name)]).permutation(len(members))
        kept.extend(int(members[place]) for place in order[:quota])
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


def _shuffled_groups(labels: IntArray, groups: IntArray, *, label: int, seed: tuple[int, int]) -> list[tuple[int, ...]]:
    """The groups of one class, in seeded order; groups are numbered by their first member."""
    members: dict[int, list[int]] = {}
    for place in np.flatnonzero(labels == label):
        members.setdefault(int(groups[place]), []).append(int(place))
    listed = [tuple(group) for group in members.values()]
    order = np.random.default_rng([*seed, label]).permutation(len(listed))
    return [listed[place] for place in order]


def _flat(groups: Sequence[tuple[int, ...]]) -> list[int]:
    return [place for group in groups for place in group]


def _parts(n: int, *, val: Sequence[int], test: Sequence[int]) -> Split:
    part = np.zeros(n, dtype=np.int64)
    part[list(val)], part[list(test)] = 1, 2
    train, validation, held_out = (np.flatnonzero(part == number).astype(np.int64) for number in range(3))
    return Split(train=train, val=validation, test=held_out)


def settle_copies(
    good: Sequence[int], *, entries: Sequence[Entry], digests: Sequence[str]
) -> tuple[list[int], list[BadFile]]:
    """Leave out copies across given splits and copies with contradicting labels.

    Of copies in several splits the ones in test stay, else the ones in val: a model must not be tuned or chosen on what
    it is tested on, and no test image is given up for that. Copies of one image under several labels teach nothing:
    they are left out of train, and altogether where no split is given. Other copies are kept.

    Args:
        good: Positions of the images that can be used.
        entries: All entries.
        digests: Of the decoded pixels of all entries, equal for copies.

    Returns:
        The positions that stay, and a line on each copy that was left out or has a contradicting label.
    """
    groups: dict[str, list[int]] = {}
    for place in good:
        groups.setdefault(digests[place], []).append(place)
    dropped: set[int] = set()
    listed: list[BadFile] = []
    for members in groups.values():
        copies = [entries[place] for place in members]
        for place in members if len(members) > 1 else ():
            note = _copy_note(entries[place], copies)
            if note is not None:
                listed.append(note)
                if not note.used:
                    dropped.add(place)
    return [place for place in good if place not in dropped], listed


def _copy_note(entry: Entry, copies: Sequence[Entry]) -> BadFile | None:
    """What to say of one of several copies; None: nothing, it stays."""
    present = {one.part for one in copies}
    home: Part | None = "test" if "test" in present else "val" if "val" in present else None
    if home is not None and entry.part != home:
        twin = next(one for one in copies if one.part == home)
        return a_copy(entry.path, of=twin.path, more=f"; left out of {entry.part}")
    other = next((one for one in copies if one.label != entry.label), None)
    if other is None:
        return None
    labels = f", but labelled {entry.label!r} and not {other.label!r}"
    return a_copy(entry.path, of=other.path, more=labels, used=home is not None)


def capped(scan: Scan, *, train: int | None, test: int | None, seed: int) -> tuple[IntArray, tuple[str, ...]]:
    """Sorted positions of the entries to use, and notes on what is left out.

    Args:
        scan: the folder.
        train: most images outside a given test split; None: all.
        test: most images of a given test split; None: as many as are used outside it, at least `LEAST_TEST`.
        seed: of the draws.
    """
    is_test = np.array([entry.part == "test" for entry in scan.entries])
    others, tested = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    kept, notes = _drawn(scan, others, cap=train, seed=seed, what="images outside the given test split")
    most = max(LEAST_TEST, len(kept)) if test is None else test
    shown, more = _drawn(scan, tested, cap=most, seed=seed, what="images of the given test split")
    return np.sort(np.concatenate([kept, shown])), (*notes, *more)


def _drawn(scan: Scan, places: IntArray, *, cap: int | None, seed: int, what: str) -> tuple[IntArray, tuple[str, ...]]:
    """At most ``cap`` of these entries, classes and parts in proportion, and a note where some are left out."""
    if cap is None or len(places) <= cap:
        return places, ()
    names: dict[tuple[str, Part | None], int] = {}
    strata = [names.setdefault((scan.entries[i].label, scan.entries[i].part), len(names)) for i in places]
    kept = places[stratified_cap(np.array(strata, dtype=np.int64), cap=cap, seed=seed)]
    return kept, (f"{len(kept):,} of {len(places):,} {what} were used (stratified draw)",)
