"""Which images of a labelled folder are used where they are very many: a stratified draw, the others stay unopened."""

from __future__ import annotations

from typing import Final

import numpy as np

from vlmsel_auto.records import IntArray
from vlmsel_auto.tasks import split as splitting
from vlmsel_auto.tasks.scan import Part, Scan

LEAST_TEST: Final = 1_000  # images: a share of .85 has a standard error of .011 then; our own choice


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
    kept = places[splitting.stratified_cap(np.array(strata, dtype=np.int64), cap=cap, seed=seed)]
    return kept, (f"{len(kept):,} of {len(places):,} {what} were used (stratified draw)",)
